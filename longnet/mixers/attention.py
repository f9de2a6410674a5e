"""What mixers made of dilated attention share: projections, positions and the inner norm."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from longnet import functional as F
from longnet import random
from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.autograd import Variable
from longnet.communicator import Communicator
from longnet.config import Config
from longnet.errors import ConfigError, LongNetError
from longnet.functional.buffers import as_tensor, empty
from longnet.mixers.cache import UNBOUNDED, AttentionCache, Cache
from longnet.nn import Linear, Module, make_norm, residual_gains, rotation, temperature

Levels = tuple[tuple[int, ...], tuple[int, ...]]  # segment lengths, dilation rates

# xPos multiplies by up to (1.4 / 0.4) ** (block / 2 / scale_base); exponents that a dtype holds,
# with room for the values themselves.
_XPOS_RATE = math.log(1.4 / 0.4)
_MAX_EXPONENT = {"float16": 8.0, "bfloat16": 80.0, "float32": 80.0}


class Attention(Module):
    """Attention between projections: ``out(inner_norm(attention(query(x), key(x), value(x))))``.

    A query sees all keys up to its own row. A subclass that shows it others says so by `levels`,
    or, where they are no pattern of levels, by `pairs`, `attend` and `cache`.

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
        """Return the segment lengths and dilation rates for a sequence of N rows: no query sees a
        key outside of its segments."""
        return (N,), (1,)

    def flops(self, N: int) -> int:
        """Count the operations on queries, keys and values of training on one sequence of N rows:
        4 D forward and 10 D backward for each pair of a query and a key."""
        return 14 * self.config.head_dim * self.pairs(N)

    def pairs(self, N: int) -> int:
        """Count the pairs of a query and a key of all heads, for N rows."""
        attention = DilatedAttention(*self.levels(N), offsets=self.config.offsets)
        return attention.pairs(N, self.config.num_heads)

    @property
    def head_width(self) -> int:
        """Dimensions of queries, keys and values in the attention itself."""
        return self.config.head_dim + (F.ALIBI_EXTRA if self.config.position == "alibi" else 0)

    @property
    def scale(self) -> float | None:
        """Factor of the scores; None for the attention's own."""
        if self.config.position_scaling == "yarn" or self.config.position == "alibi":
            return temperature(self.config) / math.sqrt(self.config.head_dim)
        return None

    def _block(self, lengths: Sequence[int]) -> int:
        """Rows after which positions may start again: no segment crosses their end."""
        return math.lcm(*lengths) if self.config.position == "alibi" else max(lengths)

    def forward(
        self,
        x: Variable,
        *,
        lengths: np.ndarray | Tensor | None = None,
        cu_seqlens: np.ndarray | Tensor | None = None,
        deterministic: bool = False,
        comm: Communicator | None = None,
        start: int = 0,
        total: int | None = None,
        cache: Cache | None = None,
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
        comm : Communicator, optional
            Its ranks hold the sequence in their order, each N rows of it; `lengths` and
            `cu_seqlens` are the whole sequence's.
        start : int
            Row of the sequence that row 0 of `x` is.
        total : int, optional
            Rows of the whole sequence; with `comm` it is asked for where it is not given.
        cache : Cache, optional
            Of the rows before these; it has seen these too then. Needs `no_grad`, has no dropout,
            and takes of the other options `lengths` alone: how many of the N rows each sequence
            has.

        Returns
        -------
        Variable (B, N, E)

        Raises
        ------
        ConfigError
            `start` is not 0 and there is no `comm`: rows before `start` would be missing.
        """
        if cache is not None:
            counts = None if lengths is None else np.asarray(lengths).tolist()
            return self._follow(x, cache, counts)
        config = self.config
        B, N, _ = x.shape
        if comm is None and start != 0:
            raise ConfigError(f"mixer: start is {start} without comm, expected 0")
        if total is None:
            total = N if comm is None else sum(comm.gather_objects(N))
        documents = None if cu_seqlens is None else as_tensor(cu_seqlens).to(x.data.device)
        heads = (B, N, config.num_heads, config.head_dim)
        kv_heads = (B, N, config.kv_heads, config.head_dim)
        block = self._block(self.levels(total)[0])
        place = partial(self._place, block=block, start=start, cu_seqlens=documents)
        q = place(F.reshape(self.query(x), heads), 1)
        k = place(F.reshape(self.key(x), kv_heads), -1)
        v = place(F.reshape(self.value(x), kv_heads), 0)
        dropout = config.attention_dropout if self.training else 0.0
        mixed = self.attend(
            q,
            k,
            v,
            total,
            comm,
            lengths=None if lengths is None else as_tensor(lengths),
            cu_seqlens=documents if comm is None else cu_seqlens,  # comm reads it on the host
            seed=random.current().next_shared_seed() if dropout else 0,
            scale=self.scale,
            dropout=dropout,
            deterministic=deterministic,
        )
        return self._project(mixed)

    def attend(
        self,
        q: Variable,
        k: Variable,
        v: Variable,
        total: int,
        comm: Communicator | None,
        *,
        lengths: Tensor | None,
        cu_seqlens: np.ndarray | Tensor | None,
        seed: int,
        **options: Any,
    ) -> Variable:
        """Attention of queries (B, N, H, D) to keys and values (B, N, Hk, D).

        Parameters
        ----------
        q, k, v : Variable
        total, comm, lengths, cu_seqlens
            As `forward` takes them.
        seed : int
            Of dropout.
        **options
            `scale`, `dropout` and `deterministic`, as `DilatedAttention` takes them.
        """
        attention = DilatedAttention(*self.levels(total), offsets=self.config.offsets, **options)
        return F.dilated_attention(
            q, k, v, attention, lengths=lengths, cu_seqlens=cu_seqlens, seed=seed, comm=comm
        )

    def cache(self, batch: int, dtype: str, device: str) -> Cache:
        """Return the cache of `batch` sequences of which no row has been seen.

        Parameters
        ----------
        batch : int
        dtype, device : str
            Of activations.
        """
        return AttentionCache(
            *self.levels(UNBOUNDED),
            num_heads=self.config.num_heads,
            kv_heads=self.config.kv_heads,
            head_dim=self.head_width,
            offsets=self.config.offsets,
            scale=self.scale,
            batch=batch,
            dtype=dtype,
            device=device,
        )

    def _follow(self, x: Variable, cache: Cache, counts: Sequence[int] | None) -> Variable:
        """Mix rows that follow those seen by a cache."""
        B, N, _ = x.shape
        D = self.config.head_dim
        q = self._place_after(cache.seen, F.reshape(self.query(x), (B, N, -1, D)), 1)
        k = self._place_after(cache.seen, F.reshape(self.key(x), (B, N, -1, D)), -1)
        v = self._place_after(cache.seen, F.reshape(self.value(x), (B, N, -1, D)), 0)
        if q.requires_grad:
            raise LongNetError("cache: gradients are recorded, expected a call inside no_grad()")
        mixed = cache.attend(q.data, k.data, v.data, counts)
        return self._project(Variable(mixed))

    def _project(self, mixed: Variable) -> Variable:
        """Map the heads (B, N, H, ...) that attention gives to (B, N, E)."""
        if self.config.position == "alibi":
            mixed = F.without_alibi(mixed)
        mixed = F.reshape(mixed, (*mixed.shape[:2], self.config.embed_dim))
        return self.out(mixed if self.inner_norm is None else self.inner_norm(mixed))

    def _place_after(self, seen: Sequence[int], x: Variable, sign: int) -> Variable:
        """Mark rows that follow so many others of each sequence with their positions."""
        block = self._block(self.levels(UNBOUNDED)[0])
        if block == UNBOUNDED:  # as far as xPos reaches
            reach = 2 * self.config.xpos_scale_base * _MAX_EXPONENT[x.dtype] / _XPOS_RATE
            block = max(int(reach), max(seen) + x.shape[1])
        place = partial(self._place, sign=sign, block=block, cu_seqlens=None)
        if min(seen) == max(seen):
            return place(x, start=seen[0])
        rows = [place(Variable(x.data[b : b + 1]), start=n).data for b, n in enumerate(seen)]
        out = empty((len(rows), *rows[0].shape[1:]), rows[0])
        for b, row in enumerate(rows):
            ops.cast(out[b : b + 1], row)
        return Variable(out)

    def _place(
        self, x: Variable, sign: int, *, block: int, start: int, cu_seqlens: Tensor | None
    ) -> Variable:
        """Mark queries (sign 1) or keys (sign -1) with their positions, and make values (sign 0)
        as wide as these."""
        config = self.config
        if config.position == "alibi":
            scale = 1 / math.sqrt(config.head_dim)
            return F.alibi(
                x, sign=sign, block=block, scale=scale, start=start, cu_seqlens=cu_seqlens
            )
        if sign == 0 or config.position not in ("xpos", "rope"):
            return x
        scale_base = config.xpos_scale_base if config.position == "xpos" else 0.0
        if scale_base:
            _check_exponent(block, scale_base, x.dtype)
        return F.rotary(
            x,
            sign=sign,
            scale_base=scale_base,
            block=block,
            start=start,
            cu_seqlens=cu_seqlens,
            **rotation(config),
        )


def _check_exponent(block: int, scale_base: float, dtype: str) -> None:
    exponent = block / 2 / scale_base * _XPOS_RATE
    if exponent > _MAX_EXPONENT[dtype]:
        least = math.ceil(scale_base * exponent / _MAX_EXPONENT[dtype])
        raise ConfigError(
            f"model.xpos_scale_base: found {scale_base}, expected at least {least} for {dtype} and "
            f"a segment of {block}, or xPos overflows"
        )
