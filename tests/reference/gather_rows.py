"""Rows a step apart, head by head, side by side."""

from collections.abc import Sequence

import numpy as np

from .stepped_rows import stepped_rows


def gather_rows(x: np.ndarray, rows: int, starts: Sequence[int], step: int) -> np.ndarray:
    """x (B, N, Hx, D) as (B*H, M, D), or an LSE (B, H, N) as (B*H, M)."""
    heads = len(starts)
    if x.ndim == 3:
        out = np.full((x.shape[0] * heads, rows), -np.inf)
        for b, h, m, n in stepped_rows(x.shape[0], x.shape[2], rows, starts, step):
            out[b * heads + h, m] = x[b, h, n]
        return out
    out = np.zeros((x.shape[0] * heads, rows, x.shape[3]))
    for b, h, m, n in stepped_rows(*x.shape[:2], rows, starts, step):
        out[b * heads + h, m] = x[b, n, h * x.shape[2] // heads]
    return out
