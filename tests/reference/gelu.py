"""GELU with the exact normal distribution function, and its gradient."""

import math

import numpy as np


def below(x: np.ndarray) -> np.ndarray:
    """The chance that a standard normal number is below x."""
    return np.vectorize(lambda t: math.erfc(-t / math.sqrt(2)) / 2, otypes=[float])(x)


def forward(x: np.ndarray) -> np.ndarray:
    x = x.astype(float)
    return x * below(x)


def backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    x = x.astype(float)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return dy.astype(float) * (below(x) + x * density)
