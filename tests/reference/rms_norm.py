"""RMS norm over the last dimension, and its gradient."""

import numpy as np


def forward(x: np.ndarray, weight: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """y and rstd."""
    x = x.astype(float)
    rstd = 1 / np.sqrt((x**2).mean(axis=-1) + eps)
    return x * rstd[..., None] * weight.astype(float), rstd


def backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """dx and dweight."""
    rstd = forward(x, weight, eps)[1][..., None]
    dy, n = dy.astype(float), x.astype(float) * rstd
    g = dy * weight.astype(float)
    dx = rstd * (g - n * (g * n).mean(axis=-1, keepdims=True))
    return dx, (dy * n).sum(axis=tuple(range(dy.ndim - 1)))
