"""Attention with linear biases, as dimensions of queries and keys."""

from functools import lru_cache

import numpy as np

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.errors import ConfigError
from longnet.functional.buffers import empty

ALIBI_EXTRA = 8  # dimensions that `alibi` adds to a head


def alibi_slopes(heads: int) -> np.ndarray:
    """Return how much less a key counts for each row that it is farther away.

    They are those of ALiBi (arXiv 2108.12409): :math:`2^{-8 i / H}`, i = 1 .. H, where H is a power
    of 2; else those of the next smaller power, and then every other one of twice that power.

    Parameters
    ----------
    heads : int
        H.

    Returns
    -------
    ndarray (H,) float64
    """
    power = 1 << (heads.bit_length() - 1)
    first = 2.0 ** (-8.0 / power * np.arange(1, power + 1))
    between = 2.0 ** (-4.0 / power * np.arange(1, 2 * power + 1, 2))
    return np.concatenate([first, between[: heads - power]])


def alibi(
    x: Variable,
    *,
    sign: int,
    block: int,
    scale: float,
    start: int = 0,
    cu_seqlens: Tensor | None = None,
) -> Variable:
    """Put eight dimensions before those of each head, so that scores get ALiBi's biases.

    Of queries and keys from one block, ``scale * q' . k'`` is ``scale * q . k`` less the head's
    slope times their distance, but for a number that all keys of a query have in common. It cancels
    in the softmax, not in the LSE. Values get zeros: they go through the same attention.

    Parameters
    ----------
    x : Variable (B, N, H, D)
    sign : {1, -1, 0}
        1 for queries, -1 for keys, 0 for values.
    block : int
        Rows after which positions start again, at most 2^24: no query may see a key of another
        block.
    scale : float
        Of the scores.
    start : int
        Row of the sequence that row 0 of `x` is.
    cu_seqlens : Tensor (S+1,) int64, optional
        Where documents of the sequence begin; positions restart there.

    Returns
    -------
    Variable (B, N, H, 8 + D)

    Raises
    ------
    ConfigError
        `block` is too long, or too long for float16.
    """
    slopes = None
    if sign == 1:
        _check_range(x, block, scale)
        slopes = _slopes(x.shape[2], scale, x.data.device)
    out = _wider(x.data)
    ops.alibi(
        out, x.data, slopes=slopes, cu_seqlens=cu_seqlens, start=start, block=block, sign=sign
    )
    return record(out, [x], lambda dy: [_without(dy)])


def without_alibi(x: Variable) -> Variable:
    """Drop the first eight dimensions of each head of x (B, N, H, 8 + D)."""

    def backward(dy: Tensor) -> list[Tensor | None]:
        dx = _wider(dy)
        ops.alibi(dx, dy, start=0, block=0, sign=0)
        return [dx]

    return record(_without(x.data), [x], backward)


def _without(x: Tensor) -> Tensor:
    return x[:, :, :, ALIBI_EXTRA:].copy()


def _wider(x: Tensor) -> Tensor:
    return empty((*x.shape[:-1], ALIBI_EXTRA + x.shape[-1]), x)


def _check_range(x: Variable, block: int, scale: float) -> None:
    """Biases of a block, of which 1 / 256 is stored, have a place in float16."""
    most = int(256 * 65504 * scale / alibi_slopes(x.shape[2]).max())
    if x.dtype == "float16" and block > most:
        raise ConfigError(
            f"alibi: found a block of {block} rows, expected at most {most} in float16"
        )


@lru_cache(maxsize=64)
def _slopes(heads: int, scale: float, device: str) -> Tensor:
    return Tensor((alibi_slopes(heads) / scale).astype(np.float32)).to(device)
