"""A segment that ranks share: which of its rows each of them has."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from longnet.parallel.pattern import Pattern

Window = tuple[int, int]  # compact rows [first, end)


@dataclass(frozen=True)
class Crossing:
    """A segment that ranks share, as one of them sees it.

    Attributes
    ----------
    level, step : int
        Its level's number and rate.
    start : int
        S, its first row.
    firsts : tuple of int
        Row S + s(h) of the sequence, each head's compact row 0.
    counts : tuple of int
        Compact rows of each head: H of them, or H for each batch item where `lengths` differ.
    zeros : tuple of int
        Keys of zeros beside them, likewise; empty where there are none.
    windows : dict of int to (int, int)
        Compact rows of each rank that has any: the union over heads. Near the ends of a window a
        row may be this rank's on some heads and the next one's on others.
    keys : int
        Compact rows that this rank's queries may look at; 0 where it only serves others.
    sources, readers : tuple of int
        Ranks that this one gets keys from, and that get this one's.
    """

    level: int
    step: int
    start: int
    firsts: tuple[int, ...]
    counts: tuple[int, ...]
    zeros: tuple[int, ...]
    windows: dict[int, Window]
    keys: int
    sources: tuple[int, ...]
    readers: tuple[int, ...]

    def rows(self, rank: int) -> int:
        """Compact rows of a rank's window."""
        first, end = self.windows.get(rank, (0, 0))
        return end - first

    def starts(self, rank: int, shard: int) -> list[int]:
        """Where each head's window begins, counted from the shard's first row `shard`."""
        return [first + self.windows[rank][0] * self.step - shard for first in self.firsts]


def make_crossing(pattern: Pattern, rank: int, level: int, w: int, r: int, start: int) -> Crossing:
    """Say what rank `rank` has, needs and serves of the segment of level `level` at row `start`."""
    offsets = pattern.head_offsets(r)
    found = pattern.document(start)
    assert found is not None  # `start` is a segment's first row
    document, ends = found
    batch_ends = ends if pattern.lengths is not None else ends[:1]
    counts = [_below(min(stop - start, w) - s, r) for stop in batch_ends for s in offsets]
    zeros: list[int] = []
    if pattern.zero_keys and not pattern.causal:
        padded = [_below(min(w, stop - document), r) for stop in batch_ends for _ in offsets]
        zeros = [p - n if n else 0 for p, n in zip(padded, counts, strict=True)]
    windows = dict(_windows(pattern, start, min(start + w, max(ends)), r, sorted(set(offsets))))
    begin = pattern.bounds[rank]
    others = [other for other in windows if other != rank and rank in windows]
    sources = [p for p in others if not pattern.causal or p < rank]
    readers = [p for p in others if not pattern.causal or p > rank]
    keys = 0
    if rank in windows and not pattern.causal:
        keys = max(counts)
    elif rank in windows and start < begin:
        keys = windows[rank][1]
    return Crossing(
        level=level,
        step=r,
        start=start,
        firsts=tuple(start + s for s in offsets),
        counts=tuple(counts),
        zeros=tuple(zeros) if any(zeros) else (),
        windows=windows,
        keys=keys,
        sources=tuple(sources),
        readers=tuple(readers),
    )


def _windows(
    pattern: Pattern, start: int, stop: int, r: int, offsets: list[int]
) -> Iterator[tuple[int, Window]]:
    """Each rank with rows of segment [start, stop) on some head, and its compact rows."""
    bounds = pattern.bounds
    for rank in range(max(0, bisect_right(bounds, start) - 1), len(pattern.shards)):
        begin, end = max(bounds[rank], start), min(bounds[rank + 1], stop)
        if bounds[rank] >= stop:
            break
        ends = [(_below(begin - start - s, r), _below(end - start - s, r)) for s in offsets]
        held = [(first, last) for first, last in ends if first < last]
        if held:
            yield rank, (min(a for a, _ in held), max(b for _, b in held))


def _below(rows: int, r: int) -> int:
    """How many of 0, r, 2 r, ... are below `rows`."""
    return max(0, -(-rows // r))
