"""SwiGLU's product, and its gradient."""

import numpy as np


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.where(z > 0, 1, np.exp(-np.abs(z))) / (1 + np.exp(-np.abs(z)))


def forward(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    gate = gate.astype(float)
    return gate * sigmoid(gate) * up.astype(float)


def backward(dy: np.ndarray, gate: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dgate and dup."""
    dy, gate, up = dy.astype(float), gate.astype(float), up.astype(float)
    s = sigmoid(gate)
    return dy * up * s * (1 + gate * sigmoid(-gate)), dy * gate * s
