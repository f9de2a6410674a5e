"""Dilated attention over PyTorch's tensors, as a function and as a module."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

import longnet
from longnet.errors import ConfigError, DTypeError, ShapeError
from longnet.torch import ops

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def dilated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment_lengths: Sequence[int],
    dilation_rates: Sequence[int],
    causal: bool = True,
    *,
    offsets: str = "interleaved",
    gradient: str = "exact",
    zero_keys: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    seed: int | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Dilated attention (LongNet, arXiv 2307.02486, equations 5-15) with autograd.

    Under autocast q, k and v are cast to its dtype, as for scaled_dot_product_attention.

    Parameters
    ----------
    q : Tensor (B, N, H, D)
        float32, float16 or bfloat16, on the CPU or a GPU; D 16 to 256 in steps of 8.
    k, v : Tensor (B, N, Hk, D)
        Like q; H a multiple of Hk.
    segment_lengths, dilation_rates : sequence of int
        w, in rows, and r of each level, as in `longnet.DilatedAttention`.
    causal, offsets, gradient, zero_keys, scale
        As in `longnet.DilatedAttention`.
    dropout : float
        The chance that a probability is dropped, whenever it is not 0.
    lengths : Tensor (B,) int64, optional
        Rows that exist; outputs past them are 0. On any device.
    cu_seqlens : Tensor (S+1,) int64, optional
        Where documents packed end to end begin, and N. Needs B = 1. On any device.
    seed : int, optional
        Of the dropout, 0 to 2^64 - 1; drawn from PyTorch's CPU generator where it is not given.
    return_lse : bool
        Whether to return the LSE, too. No gradient flows through it.

    Returns
    -------
    out : Tensor (B, N, H, D)
        In the dtype of q.
    lse : Tensor (B, H, N) float32
        The logarithm of the softmax denominators, only with `return_lse`.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ConfigError, OutOfMemoryError
        As `longnet.DilatedAttention` and its `forward` do.
    """
    q, k, v = take(q, k, v)
    if k.shape[1] != q.shape[1]:
        raise ShapeError(f"k: {k.shape[1]} rows, expected {q.shape[1]} as q has")
    out, lse = ops.forward(
        q,
        k,
        v,
        list(segment_lengths),
        list(dilation_rates),
        causal,
        offsets,
        gradient,
        zero_keys,
        scale,
        dropout,
        seed_tensor(seed) if dropout > 0.0 else None,
        rows(lengths, "lengths", q.device),
        rows(cu_seqlens, "cu_seqlens", q.device),
    )
    return (out, lse) if return_lse else out


class DilatedAttention(torch.nn.Module):
    """`longnet.DilatedAttention` as a module: dilated attention without weights.

    Parameters
    ----------
    segment_lengths, dilation_rates, causal, offsets, gradient, zero_keys, scale
        As in `longnet.DilatedAttention`.
    dropout : float
        The chance, in [0, 1), that a probability is dropped while training.

    Raises
    ------
    ConfigError
        For options outside their ranges.

    Examples
    --------
    >>> attention = DilatedAttention([2048, 4096, 8192], [1, 2, 4], dropout=0.1)
    >>> out = attention(q, k, v)  # q (B, N, H, D); k and v (B, N, Hk, D)
    """

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        causal: bool = True,
        *,
        offsets: str = "interleaved",
        gradient: str = "exact",
        zero_keys: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checked = longnet.DilatedAttention(
            segment_lengths,
            dilation_rates,
            causal,
            offsets=offsets,
            gradient=gradient,
            zero_keys=zero_keys,
            scale=scale,
            dropout=dropout,
        )
        self.segment_lengths: tuple[int, ...] = checked.segment_lengths
        self.dilation_rates: tuple[int, ...] = checked.dilation_rates
        self.causal: bool = checked.causal
        self.offsets: str = checked.offsets
        self.gradient: str = checked.gradient
        self.zero_keys: bool = checked.zero_keys
        self.scale: float | None = checked.scale
        self.dropout: float = checked.dropout

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        lengths: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        seed: int | None = None,
        return_lse: bool = False,
    ) -> Any:
        """Apply `dilated_attention`, with dropout while training alone."""
        return dilated_attention(
            q,
            k,
            v,
            self.segment_lengths,
            self.dilation_rates,
            self.causal,
            offsets=self.offsets,
            gradient=self.gradient,
            zero_keys=self.zero_keys,
            scale=self.scale,
            dropout=self.dropout if self.training else 0.0,
            lengths=lengths,
            cu_seqlens=cu_seqlens,
            seed=seed,
            return_lse=return_lse,
        )

    def extra_repr(self) -> str:
        """The options, as the constructor takes them."""
        return (
            f"{self.segment_lengths}, {self.dilation_rates}, causal={self.causal}, "
            f"offsets={self.offsets!r}, gradient={self.gradient!r}, zero_keys={self.zero_keys}, "
            f"scale={self.scale}, dropout={self.dropout}"
        )


def take(*qkv: Tensor) -> list[Tensor]:
    """Q, k and v cast as autocast asks, contiguous already here, so that backward need not copy."""
    taken = []
    for name, x in zip("qkv", qkv, strict=True):
        if not isinstance(x, Tensor):
            raise DTypeError(f"{name}: {type(x).__name__}, expected a torch.Tensor")
        if x.dim() != 4:
            raise ShapeError(f"{name}: {x.dim()} dimensions, expected 4: (B, N, H, D)")
        if x.dtype not in DTYPES:
            raise DTypeError(f"{name}: {x.dtype}, expected float32, float16 or bfloat16")
        if not torch.compiler.is_compiling() and unpack_dual(x).tangent is not None:
            raise NotImplementedError(
                f"dilated_attention: {name} has a tangent: forward-mode derivatives are not "
                "implemented"
            )
        if x.device.type in ops.DEVICES and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        taken.append(x.contiguous())
    return taken


def seed_tensor(seed: int | None) -> Tensor:
    """The seed as an int64 on the CPU, which traces and checkpoints replay like other numbers."""
    if seed is None:
        return torch.randint(2**63 - 1, (), dtype=torch.int64)
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed: {seed}, expected 0 to 2^64 - 1")
    return torch.tensor(seed - 2**64 if seed >= 2**63 else seed, dtype=torch.int64)


def rows(numbers: Tensor | None, name: str, device: torch.device) -> Tensor | None:
    """Row numbers as the extension takes them."""
    if numbers is None:
        return None
    if not isinstance(numbers, Tensor):
        raise DTypeError(f"{name}: {type(numbers).__name__}, expected a torch.Tensor")
    if numbers.dtype not in (torch.int64, torch.int32):
        raise DTypeError(f"{name}: {numbers.dtype}, expected int64 or int32")
    return numbers.to(device, torch.int64).contiguous()
