"""Stochastic rounding to bfloat16 and float16."""

import ml_dtypes
import numpy as np

# Digits after the first one, and the exponent of the smallest normal number.
FORMATS = {np.dtype(np.float16): (10, -14), np.dtype(ml_dtypes.bfloat16): (7, -126)}


def stochastic(x: np.ndarray, words: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """To the neighbour further from zero where the fraction and 24 random bits make 1 or more."""
    digits, smallest = FORMATS[np.dtype(dtype)]
    size = np.abs(np.where(np.isfinite(x), x, 0).astype(float))
    step = np.exp2(np.maximum(np.frexp(size)[1] - 1, smallest) - digits)
    whole = np.floor(size / step)
    whole += size / step - whole + (words >> 8) / 2**24 >= 1
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(x), np.copysign(whole * step, x), x).astype(dtype)
