"""Uniform random numbers."""

import numpy as np

from reference.philox import philox


def words(count: int, seed: int) -> np.ndarray:
    """Element i's word: number i mod 4 of those that Philox makes of counter i / 4."""
    return philox(seed, np.arange(-(-count // 4)), 0).reshape(-1)[:count]


def uniform(shape: tuple[int, ...], low: float, high: float, seed: int) -> np.ndarray:
    u = (words(int(np.prod(shape)), seed) >> 8) / 2**24
    return low + (high - low) * u.reshape(shape)
