"""A pseudo-random permutation that needs no table."""

from __future__ import annotations

import numpy as np

_ROUNDS = 8


class Permutation:
    """A bijection of ``0 .. size - 1`` computed an index at a time.

    A Feistel network over the smallest even number of bits that holds ``size - 1``, with
    SplitMix64's finaliser as round function; a value that falls outside the range goes through the
    network again until it falls inside (cycle walking: four passes on average at most). Shuffling a
    million million windows so takes as much memory as shuffling ten.

    Parameters
    ----------
    size : int
        Number of elements, 1 .. 2^62.
    generator : numpy.random.Generator
        Gives the round keys.
    """

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self._size = np.uint64(size)
        half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._half_bits = np.uint64(half_bits)
        self._mask = np.uint64((1 << half_bits) - 1)
        self._keys = generator.integers(0, 2**64, size=_ROUNDS, dtype=np.uint64)

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """Images of (n,) integer indices below `size`, as (n,) int64."""
        values = self._pass(index.astype(np.uint64))
        outside = values >= self._size
        while outside.any():
            values[outside] = self._pass(values[outside])
            outside = values >= self._size
        return values.astype(np.int64)

    def _pass(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half_bits, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return (left << self._half_bits) | right


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser; products wrap modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
