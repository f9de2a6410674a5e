"""Sum of the squares of all elements."""

import numpy as np


def sum_squares(x: np.ndarray) -> np.ndarray:
    return (x.astype(float) ** 2).sum().reshape(1)
