"""Rows a step apart, added to a sequence."""

from collections.abc import Sequence

import numpy as np

from .stepped_rows import stepped_rows


def add_rows(x: np.ndarray, part: np.ndarray, starts: Sequence[int], step: int) -> np.ndarray:
    """part (B*H, M, D) added to x (B, N, Hx, D)."""
    x, part, heads = x.astype(float), part.astype(float), len(starts)
    for b, h, m, n in stepped_rows(*x.shape[:2], part.shape[1], starts, step):
        x[b, n, h * x.shape[2] // heads] += part[b * heads + h, m]
    return x
