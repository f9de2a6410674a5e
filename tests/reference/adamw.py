"""One step of AdamW."""

import numpy as np


def adamw(
    weight: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    grad: np.ndarray,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    factor: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The new weight, m and v."""
    weight, m, v, grad = (x.astype(float) for x in (weight, m, v, grad))
    grad = factor * grad
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    weight = weight - learning_rate * weight_decay * weight
    update = m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return weight - learning_rate * update, m, v
