"""Which rows of a level a cache holds, and which of them one more row of each sequence moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from longnet._core import Tensor

UNBOUNDED = 1 << 62  # the length of a segment that never ends
_FIRST_ROWS = 1024  # of such a segment
_MOST_STARTS = 128  # of one call: its cost grows with their square, and a GPU's launch has as many

Moves = list[tuple[list[int], list[int]]]  # rows, and the rows that they become


@dataclass(frozen=True)
class CachedLevel:
    """A level of a cache.

    Attributes
    ----------
    length, rate : int
        w and r.
    rows : int
        M, compact rows of a matrix: ceil(w / r), unless the segment never ends.
    share : int
        Neighbouring query heads that read one matrix: they have one key head and one offset.
    offsets : tuple of int
        s of each matrix of a sequence, H / share of them.
    """

    length: int
    rate: int
    rows: int
    share: int
    offsets: tuple[int, ...]

    @classmethod
    def make(cls, length: int, rate: int, heads: int, kv_heads: int, rule: str) -> CachedLevel:
        """Return the level (w, r) of `heads` query heads with offsets by `rule`."""
        each = -(-heads // rate)
        offsets = [h % rate if rule == "interleaved" else h // each for h in range(heads)]
        group = heads // kv_heads
        share = next(
            c
            for c in range(group, 0, -1)
            if group % c == 0 and all(offsets[h] == offsets[h - h % c] for h in range(heads))
        )
        rows = _FIRST_ROWS if length == UNBOUNDED else -(-length // rate)
        return cls(length, rate, rows, share, tuple(offsets[::share]))

    def holding(self, positions: int) -> CachedLevel:
        """Return the level with room for a segment of so many positions, if it never ends."""
        rows = self.rows
        while self.length == UNBOUNDED and rows * self.rate < positions:
            rows *= 2
        return self if rows == self.rows else replace(self, rows=rows)

    def window(self, place: int, count: int) -> tuple[int, int]:
        """Return the compact rows [first, end) of positions [place, place + count) of a segment:
        the union over the matrices, of which some may lack the first or the last."""
        ends = [
            tuple(-(-(p - s) // self.rate) for p in (place, place + count))
            for s in set(self.offsets)
        ]
        return min(first for first, _ in ends), max(end for _, end in ends)

    def starts(self, place: int, first: int) -> list[int]:
        """Return of each matrix the position of compact row `first`, counted from `place`."""
        return [s + first * self.rate - place for s in self.offsets]


@dataclass(frozen=True)
class Step:
    """What one more row of each sequence does to a cache.

    Attributes
    ----------
    begun : list of (int, int)
        Levels and sequences of which a segment begins.
    moves : list of (list of int, list of int)
        Rows of keys (B * Hk, D), and the rows of the cache that they become.
    lengths : list of (int, Tensor)
        Levels that any head takes part on, and how many compact rows each of their matrices shows,
        int64 (B * H / share,); 0 to those that take no part.
    """

    begun: list[tuple[int, int]]
    moves: Moves
    lengths: list[tuple[int, Tensor]]


@lru_cache(maxsize=64)  # the layers of a model ask for the same
def plan_step(
    levels: Sequence[CachedLevel], positions: Sequence[int], kv_heads: int, device: str
) -> Step:
    """Say what a row at `positions` of each sequence does; -1 for a sequence that gets none."""
    begun: list[tuple[int, int]] = []
    sources: list[int] = []
    targets: list[int] = []
    shown: list[tuple[int, Tensor]] = []
    first = 0
    for i, level in enumerate(levels):
        items = len(level.offsets)
        per_kv_head = items // kv_heads
        lengths = np.zeros(len(positions) * items, np.int64)
        for b, position in enumerate(positions):
            if position < 0:
                continue
            row, residue = divmod(position % level.length, level.rate)
            if row == 0 and residue == 0:
                begun.append((i, b))
            for item, offset in enumerate(level.offsets):
                if offset == residue:
                    sources.append(b * kv_heads + item // per_kv_head)
                    targets.append(first + (b * items + item) * level.rows + row)
                    lengths[b * items + item] = row + 1
        if lengths.any():
            shown.append((i, Tensor(lengths).to(device)))
        first += len(lengths) * level.rows
    return Step(begun, split_moves(sources, targets), shown)


def split_moves(sources: list[int], targets: list[int]) -> Moves:
    """Divide rows and where they go among calls."""
    return [
        (sources[at : at + _MOST_STARTS], targets[at : at + _MOST_STARTS])
        for at in range(0, len(sources), _MOST_STARTS)
    ]
