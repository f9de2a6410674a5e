"""Normal random numbers by Box and Muller's transform."""

import numpy as np

from reference.uniform import words


def normal(shape: tuple[int, ...], mean: float, std: float, seed: int) -> np.ndarray:
    count = int(np.prod(shape))
    pairs = words(count + count % 2, seed).reshape(-1, 2) >> 8
    radius = np.sqrt(-2 * np.log((pairs[:, 0].astype(float) + 1) / 2**24))
    angle = 2 * np.pi * pairs[:, 1] / 2**24
    numbers = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return mean + std * numbers.reshape(-1)[:count].reshape(shape)
