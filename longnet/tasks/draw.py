"""Random draws that are the same on any machine and with any version of NumPy.

NumPy promises the stream of a bit generator for ever, but not what `numpy.random.Generator` makes
of it. Everything here is integer arithmetic on Philox's words, or exact in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draw:
    """Draws of one example.

    Parameters
    ----------
    key, seed : int
        64 bits each: the key of Philox.
    index : int
        64 bits: the highest word of its counter, so that examples do not overlap.
    """

    def __init__(self, key: int, seed: int, index: int) -> None:
        self._bits = np.random.Philox(
            key=np.array([key, seed], np.uint64), counter=np.array([0, 0, 0, index], np.uint64)
        )

    def words(self, count: int) -> np.ndarray:
        """(count,) uint64, uniform."""
        return self._bits.random_raw(count)

    def integer(self, low: int, high: int) -> int:
        """One integer in ``low .. high - 1``, of at most 2^64 values."""
        # The remainder prefers small values, by a factor of 1 + (high - low) / 2^64 at most.
        return low + int(self._bits.random_raw()) % (high - low)

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        """(count,) int64 in ``low .. high - 1``."""
        return low + (self.words(count) % np.uint64(high - low)).astype(np.int64)

    def uniform(self) -> float:
        """A float64 in [0, 1), a multiple of 2^-53."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def uniforms(self, count: int) -> np.ndarray:
        """(count,) such floats."""
        return (self.words(count) >> np.uint64(11)) * 2.0**-53

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.integer(0, len(items))]

    def permutation(self, count: int) -> np.ndarray:
        """(count,) int64: 0 .. count - 1 in random order."""
        return np.argsort(self.words(count), kind="stable")

    def sample(self, population: int, count: int) -> np.ndarray:
        """(count,) different int64 in ``0 .. population - 1``, in random order."""
        if 4 * count >= population:
            return self.permutation(population)[:count]
        found: dict[int, None] = {}  # keeps the order of insertion
        while len(found) < count:
            for value in self.integers(0, population, count - len(found)).tolist():
                found[value] = None
        return np.fromiter(found, np.int64, count)

    def spaced(self, length: int, count: int, width: int) -> np.ndarray:
        """(count,) rising starts of blocks of `width` that lie apart in ``0 .. length - 1``."""
        free = length - count * (width - 1)
        return np.sort(self.sample(free, count)) + (width - 1) * np.arange(count)
