"""A tensor times a number."""

import numpy as np


def scale(x: np.ndarray, alpha: float, factor: np.ndarray | None = None) -> np.ndarray:
    return x.astype(float) * alpha * (1.0 if factor is None else float(factor[0]))
