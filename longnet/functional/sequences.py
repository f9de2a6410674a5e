"""Sequences inside a batch: whole, padded on the right, or packed end to end."""

from itertools import pairwise

import numpy as np

from longnet._core import Tensor
from longnet.functional.buffers import as_tensor

Sequences = list[tuple[slice, int, int]]


def sequences(
    x: Tensor,
    lengths: np.ndarray | Tensor | None = None,
    cu_seqlens: np.ndarray | Tensor | None = None,
) -> Sequences:
    """Return the batch items and the rows [begin, end) of each sequence of x (B, N, ...).

    Items that have the same rows are one entry.
    """
    B, N = x.shape[:2]
    if cu_seqlens is not None:
        borders = _numbers(cu_seqlens)
        return [(slice(0, 1), a, e) for a, e in pairwise(borders)]
    if lengths is None:
        return [(slice(0, B), 0, N)]
    return [(slice(b, b + 1), 0, n) for b, n in enumerate(_numbers(lengths))]


def _numbers(array: np.ndarray | Tensor) -> list[int]:
    return as_tensor(array).to("cpu").numpy().tolist()
