"""Sum of two tensors."""

import numpy as np


def add(x: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    return x.astype(float) + alpha * y.astype(float)
