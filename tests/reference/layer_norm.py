"""Layer norm over the last dimension, and its gradient."""

import numpy as np


def normalise(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The normalised rows, their means and the inverses of their standard deviations."""
    x = x.astype(float)
    mean = x.mean(axis=-1)
    rstd = 1 / np.sqrt(((x - mean[..., None]) ** 2).mean(axis=-1) + eps)
    return (x - mean[..., None]) * rstd[..., None], mean, rstd


def forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, mean and rstd."""
    n, mean, rstd = normalise(x, eps)
    return n * weight.astype(float) + bias.astype(float), mean, rstd


def backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight and dbias."""
    n, _, rstd = normalise(x, eps)
    dy, rows = dy.astype(float), tuple(range(dy.ndim - 1))
    g = dy * weight.astype(float)
    dn = g - g.mean(axis=-1, keepdims=True) - n * (g * n).mean(axis=-1, keepdims=True)
    return dn * rstd[..., None], (dy * n).sum(axis=rows), dy.sum(axis=rows)
