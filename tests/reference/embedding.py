"""Rows of a table, and the table's gradient."""

import numpy as np


def forward(weight: np.ndarray, tokens: np.ndarray, scale: float) -> np.ndarray:
    return scale * weight.astype(float)[tokens]


def backward(dweight: np.ndarray, dout: np.ndarray, tokens: np.ndarray, scale: float) -> np.ndarray:
    """What dweight holds, and each position's share added to its token's row."""
    total = dweight.astype(float)
    np.add.at(total, tokens, scale * dout.astype(float))
    return total
