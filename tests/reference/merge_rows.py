"""Two softmaxes over different keys made one, for rows a step apart."""

from collections.abc import Sequence

import numpy as np

from .stepped_rows import stepped_rows


def merge_rows(
    out: np.ndarray,
    lse: np.ndarray,
    part: np.ndarray,
    part_lse: np.ndarray,
    starts: Sequence[int],
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The new out (B, N, H, D) and lse (B, H, N)."""
    out, lse = out.astype(float), lse.astype(float)
    heads = len(starts)
    for b, h, m, n in stepped_rows(*out.shape[:2], part.shape[1], starts, step):
        old, new = lse[b, h, n], float(part_lse[b * heads + h, m])
        if new == -np.inf:
            continue
        # 1 / (1 + exp(x)) = exp(-logaddexp(0, x)): the weight of a side by the other's distance
        mixed = np.exp(-np.logaddexp(0, old - new)) * part[b * heads + h, m].astype(float)
        if old != -np.inf:
            mixed += np.exp(-np.logaddexp(0, new - old)) * out[b, n, h]
        out[b, n, h], lse[b, h, n] = mixed, np.logaddexp(old, new)
    return out, lse
