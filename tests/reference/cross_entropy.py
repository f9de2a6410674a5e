"""Cross-entropy of rows of logits with their targets, and its gradient."""

import numpy as np


def forward(logits: np.ndarray, targets: np.ndarray, ignore_index: int) -> np.ndarray:
    """The loss of each row, 0 where it is ignored."""
    logits, rows = logits.astype(float), np.flatnonzero(targets != ignore_index)
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss = np.zeros(len(logits))
    loss[rows] = np.log(np.exp(shifted).sum(axis=1))[rows] - shifted[rows, targets[rows]]
    return loss


def backward(
    logits: np.ndarray, targets: np.ndarray, scale: float, ignore_index: int
) -> np.ndarray:
    """scale times the gradient of the sum of the losses."""
    logits, rows = logits.astype(float), np.flatnonzero(targets != ignore_index)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[rows, targets[rows]] -= 1
    p[targets == ignore_index] = 0
    return scale * p
