"""Dropout with counter-based random numbers."""

import numpy as np

from reference.uniform import words


def dropout(x: np.ndarray, p: float, seed: int) -> np.ndarray:
    kept = words(x.size, seed).reshape(x.shape) >= int(p * 2**32)
    return np.where(kept, x.astype(float) / (1 - p), 0)
