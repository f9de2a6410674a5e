"""One value everywhere."""

import numpy as np


def fill(shape: tuple[int, ...], value: float) -> np.ndarray:
    return np.full(shape, value)
