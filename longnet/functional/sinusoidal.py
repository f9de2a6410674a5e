"""Sinusoids of the position, added to what they mark."""

from collections.abc import Sequence

import numpy as np

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import cast_to, empty_like, zeros


def add_sinusoids(
    x: Variable,
    *,
    base: float = 10000.0,
    start: int | Sequence[int] = 0,
    cu_seqlens: Tensor | None = None,
) -> Variable:
    r"""Add :math:`\sin(p \cdot base^{-2i/E})` to element 2i and the cosine to element 2i + 1.

    These are the positions of the Transformer (arXiv 1706.03762, section 3.5).

    Parameters
    ----------
    x : Variable (B, N, E)
        E even.
    base : float
        Of the wavelengths.
    start : int, or B of them
        Row of the sequence, or of each, that row 0 of `x` is, and its position p.
    cu_seqlens : Tensor (S+1,) int64, optional
        Where documents of the sequence begin; positions restart there.

    Returns
    -------
    Variable (B, N, E)
    """
    B, N, E = x.shape
    pair = cast_to(Tensor(np.tile(np.array([0, 1], np.float32), E // 2)).to(x.data.device), x.dtype)
    table = zeros((B * N, E), x.data)
    ops.bias_add(table, table, pair)
    heads = table.reshape(B, N, 1, E)
    if isinstance(start, int):
        parts = [(heads, start)]
    else:
        parts = [(heads[b : b + 1], first) for b, first in enumerate(start)]
    for part, first in parts:
        # (0, 1) turned backwards by an angle is its sine and cosine
        ops.rotary(
            part,
            part,
            cu_seqlens=cu_seqlens,
            start=first,
            base=base,
            scale_base=0.0,
            block=0,
            inverse=True,
            sign=1,
        )
    out = empty_like(x.data)
    ops.add(out, x.data, table.reshape(B, N, E), 1.0)
    return record(out, [x], lambda dout: [dout], passes=True)
