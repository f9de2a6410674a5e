"""Which rows of which level a rank needs from others: integers only, no tensors.

A segment of a level that lies inside a shard is attention as ever. One that crosses an end of the
shard is *crossing*: the rows of it that take part on a head are numbered 0, 1, ... ("compact" rows:
row m of head h is row S + s(h) + m r of the sequence), and every rank holds a window of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from longnet.parallel.crossing import Crossing, make_crossing
from longnet.parallel.pattern import Pattern

Rows = tuple[int, int]  # [begin, end)


@dataclass(frozen=True)
class Local:
    """Levels that one call on rows of the shard computes.

    Attributes
    ----------
    levels : tuple of int
        Their numbers; consecutive where dropout is drawn.
    begin, end : int
        Rows of the sequence, which no segment of these levels crosses.
    lengths, cu_seqlens : tuple of int or None
        Of these rows alone.
    """

    levels: tuple[int, ...]
    begin: int
    end: int
    lengths: tuple[int, ...] | None
    cu_seqlens: tuple[int, ...] | None


@dataclass(frozen=True)
class Plan:
    """What one rank computes: rows [begin, end) of the sequence are its own."""

    rank: int
    heads: int
    begin: int
    end: int
    locals: tuple[Local, ...]
    crossings: tuple[Crossing, ...]

    @property
    def looking(self) -> list[Crossing]:
        """The crossing segments that this rank's queries look at."""
        return [c for c in self.crossings if c.keys]

    def key_rows(self) -> int:
        """Rows that this rank receives in forward, a head and batch item, of keys and as many of
        values: 2 B H D elements a row."""
        return sum(c.rows(source) for c in self.crossings for source in c.sources)

    def gradient_parts(self) -> int:
        """How many calls and ranks, at most, add to a gradient of this rank's rows."""
        shared = sum((c.keys > 0) + len(c.readers) for c in self.crossings)
        return len(self.locals) + shared

    def gradient_rows(self) -> int:
        """Likewise of their gradients in backward."""
        return sum(c.rows(self.rank) * len(c.readers) for c in self.crossings)


@lru_cache(maxsize=256)
def make_plan(pattern: Pattern, rank: int) -> Plan:
    """Divide the levels of one rank into calls and messages.

    Parameters
    ----------
    pattern : Pattern
        The same on every rank.
    rank : int

    Returns
    -------
    Plan
        `crossings` in the order of level and row: every pair of ranks counts its own alike.
    """
    begin, end = pattern.bounds[rank : rank + 2]
    inside: dict[tuple[int, int], list[list[int]]] = {}
    crossings = []
    for level, (w, r) in enumerate(pattern.levels):
        if begin == end:
            break
        first, last, segments = _divide(pattern, w, begin, end)
        crossings += [make_crossing(pattern, rank, level, w, r, s) for s in segments]
        if first < last and pattern.document(first) is not None:
            groups = inside.setdefault((first, last), [])
            if not groups or (pattern.dropout and groups[-1][-1] != level - 1):
                groups.append([])
            groups[-1].append(level)
    calls = [_local(pattern, rows, levels) for rows in inside for levels in inside[rows]]
    calls.sort(key=lambda call: call.begin - call.end)  # the longest first: others are added to it
    return Plan(
        rank,
        pattern.heads,
        begin,
        end,
        tuple(calls),
        tuple(c for c in crossings if rank in c.windows),
    )


def _divide(pattern: Pattern, w: int, begin: int, end: int) -> tuple[int, int, list[int]]:
    """Rows between the crossing segments of a level, and where those begin."""
    first, last, segments = begin, end, []
    start, stop = _segment(pattern, w, begin)
    if start < begin:
        segments.append(start)
        first = min(stop, end)
    if first < end:
        start, stop = _segment(pattern, w, end - 1)
        if stop > end and start >= first:
            segments.append(start)
            if not pattern.causal:  # a causal query needs no key of a later rank
                last = start
    while pattern.zero_keys and not pattern.causal and first < last:
        # A call on rows from here on would pad a short segment to its own length, not to w.
        found = pattern.document(first)
        if found is None or first == found[0]:
            break
        if not any(0 < stop - first < w for stop in found[1]):
            break
        segments.append(first)
        first = _segment(pattern, w, first)[1]
    return first, last, sorted(segments)


def _segment(pattern: Pattern, w: int, row: int) -> Rows:
    """The segment of `row`, or the row alone where no batch item has it."""
    found = pattern.document(row)
    if found is None:
        return row, row + 1
    start = row - (row - found[0]) % w
    return start, min(start + w, max(found[1]))


def _local(pattern: Pattern, rows: Rows, levels: list[int]) -> Local:
    begin, end = rows
    lengths = cu_seqlens = None
    if pattern.lengths is not None and min(pattern.lengths) < end:
        lengths = tuple(min(max(n - begin, 0), end - begin) for n in pattern.lengths)
    if pattern.cu_seqlens is not None:
        inner = [row - begin for row in pattern.cu_seqlens if begin < row < end]
        cu_seqlens = (0, *inner, end - begin)
    return Local(tuple(levels), begin, end, lengths, cu_seqlens)


def bytes_received(
    plan: Plan,
    *,
    batch: int,
    head_dim: int,
    itemsize: int,
    keys: bool = True,
    gradients: bool = False,
) -> int:
    """Count the bytes that a rank receives.

    Parameters
    ----------
    plan : Plan
        Of that rank.
    batch, head_dim, itemsize : int
        B, D, and bytes of an element of q, k and v.
    keys : bool
        Count keys and values: `forward` fetches them, and `backward` unless it is given them.
    gradients : bool
        Count the gradients that come back in `backward`, which are float32.

    Returns
    -------
    int
        2 B H D times the bytes of an element for every compact row: a key and a value of every
        head.
    """
    row_bytes = keys * itemsize * plan.key_rows() + gradients * 4 * plan.gradient_rows()
    return 2 * batch * plan.heads * head_dim * row_bytes
