"""What mixers made of dilated attention share: projections, positions and the inner norm."""

import math

import numpy as np

from longnet import functional as F
from longnet import random
from longnet._core import Tensor
from longnet.attention import DilatedAttention
from longnet.autograd import Variable
from longnet.config import Config
from longnet.errors import ConfigError
from longnet.functional.buffers import as_tensor
from longnet.nn import Linear, Module, make_norm, residual_gains

Levels = tuple[tuple[int, ...], tuple[int, ...]]  # segment lengths, dilation rates

# xPos multiplies by up to (1.4 / 0.4) ** (block / 2 / scale_base); exponents that a dtype holds,
# with room for the values themselves.
_MAX_EXPONENT = {"float16": 8.0, "bfloat16": 80.0, "float32": 80.0}


class Attention(Module):
    """Attention between projections: ``out(inner_norm(attention(query(x), key(x), value(x))))``.

    A subclass says by `levels` which query sees which key.

    Parameters
    ----------
    config : Config
    layer : int
        From 0.
    device : str
        Where the parameters lie.

    Attributes
    ----------
    query, key, value, out : Linear
        E to H D, to Hk D twice, and H D to E.
    inner_norm : Module or None
        Over E, before `out`, with sub-LayerNorm.
    """

    def __init__(self, config: Config, layer: int, *, device: str = "cpu") -> None:
        self.config = config
        self.layer = layer
        inner, outer = residual_gains(config)
        dim, kv_dim = config.embed_dim, config.kv_heads * config.head_dim
        self.query = Linear(dim, dim, bias=config.bias, device=device)
        self.key = Linear(dim, kv_dim, bias=config.bias, device=device)
        self.value = Linear(dim, kv_dim, bias=config.bias, gain=inner, device=device)
        self.out = Linear(dim, dim, bias=config.bias, gain=outer, device=device)
        self.inner_norm = (
            make_norm(config.norm, dim, config.norm_eps, device)
            if config.norm_placement == "sub"
            else None
        )

    def levels(self, N: int) -> Levels:
        """Return the segment lengths and dilation rates for N rows."""
        raise NotImplementedError(f"{type(self).__name__} does not define levels")

    def flops(self, N: int) -> int:
        """Count the operations on queries, keys and values of training on one sequence of N rows:
        4 D forward and 10 D backward for each pair of a query and a key."""
        attention = DilatedAttention(*self.levels(N), offsets=self.config.offsets)
        return 14 * self.config.head_dim * attention.pairs(N, self.config.num_heads)

    def forward(
        self,
        x: Variable,
        *,
        lengths: np.ndarray | Tensor | None = None,
        cu_seqlens: np.ndarray | Tensor | None = None,
        deterministic: bool = False,
    ) -> Variable:
        """Mix the rows of x (B, N, E).

        Parameters
        ----------
        x : Variable (B, N, E)
        lengths : array (B,) int64, optional
            Rows that exist.
        cu_seqlens : array (S+1,) int64, optional
            Where packed documents begin, and N.
        deterministic : bool
            Gradients of the same bits every time on a GPU as well.

        Returns
        -------
        Variable (B, N, E)
        """
        config = self.config
        B, N, E = x.shape
        segment_lengths, dilation_rates = self.levels(N)
        documents = None if cu_seqlens is None else as_tensor(cu_seqlens).to(x.data.device)
        heads = (B, N, config.num_heads, config.head_dim)
        kv_heads = (B, N, config.kv_heads, config.head_dim)
        block = max(segment_lengths)
        q = self._place(F.reshape(self.query(x), heads), 1, block, documents)
        k = self._place(F.reshape(self.key(x), kv_heads), -1, block, documents)
        v = F.reshape(self.value(x), kv_heads)
        dropout = config.attention_dropout if self.training else 0.0
        attention = DilatedAttention(
            segment_lengths,
            dilation_rates,
            offsets=config.offsets,
            dropout=dropout,
            deterministic=deterministic,
        )
        mixed = F.dilated_attention(
            q,
            k,
            v,
            attention,
            lengths=None if lengths is None else as_tensor(lengths),
            cu_seqlens=documents,
            seed=random.current().next_seed() if dropout else 0,
        )
        mixed = F.reshape(mixed, (B, N, E))
        return self.out(mixed if self.inner_norm is None else self.inner_norm(mixed))

    def _place(self, x: Variable, sign: int, block: int, cu_seqlens: Tensor | None) -> Variable:
        """Mark queries (sign 1) or keys (sign -1) with their positions."""
        config = self.config
        if config.position == "none":
            return x
        scale_base = config.xpos_scale_base if config.position == "xpos" else 0.0
        if scale_base:
            _check_exponent(block, scale_base, x.dtype)
        return F.rotary(
            x,
            sign=sign,
            base=config.position_base,
            scale_base=scale_base,
            block=block,
            cu_seqlens=cu_seqlens,
        )


def _check_exponent(block: int, scale_base: float, dtype: str) -> None:
    exponent = block / 2 / scale_base * math.log(1.4 / 0.4)
    if exponent > _MAX_EXPONENT[dtype]:
        least = math.ceil(scale_base * exponent / _MAX_EXPONENT[dtype])
        raise ConfigError(
            f"model.xpos_scale_base: found {scale_base}, expected at least {least} for {dtype} and "
            f"a segment of {block}, or xPos overflows"
        )
