"""Sequences inside a batch, whole, padded on the right or packed end to end; and parts of them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sequences:
    """What the rows of a batch (B, N, ...) are.

    Attributes
    ----------
    batch, rows : int
        B and N.
    lengths : tuple of int or None
        Rows that exist, a batch item each.
    borders : tuple of int or None
        Where documents begin, and N. B is 1 then.
    """

    batch: int
    rows: int
    lengths: tuple[int, ...] | None = None
    borders: tuple[int, ...] | None = None

    def entries(self) -> list[tuple[slice, int, int]]:
        """Return the batch items and the rows [begin, end) of each sequence; those of the same
        rows are one entry."""
        if self.borders is not None:
            return [(slice(0, 1), a, e) for a, e in pairwise(self.borders)]
        if self.lengths is None:
            return [(slice(0, self.batch), 0, self.rows)]
        return [(slice(b, b + 1), 0, n) for b, n in enumerate(self.lengths)]

    def begin_of(self, row: int) -> int:
        """Return the first row of the sequence that has a row."""
        return 0 if self.borders is None else self.borders[bisect_right(self.borders, row) - 1]

    def within(self, first: int, end: int) -> dict[str, Any]:
        """Return `lengths` and `cu_seqlens` of the rows [first, end) alone, as options of
        `DilatedAttention`."""
        found: dict[str, Any] = {}
        for name, numbers in (("lengths", self.lengths), ("cu_seqlens", self.borders)):
            if numbers is not None:
                found[name] = np.clip(np.array(numbers, np.int64), first, end) - first
        return found


@dataclass(frozen=True)
class Span:
    """Queries of the rows [begin, end) of sequences, and the keys of rows [first, end) with them.

    Attributes
    ----------
    sequences : Sequences
    first, begin, end : int
    """

    sequences: Sequences
    first: int
    begin: int
    end: int
