"""Compact keys and values of the segments that pieces of a sequence share.

A causal query needs keys of earlier rows only, so they are collected while the pieces pass. Where
queries need keys of later rows, or other ranks need this one's, those rows are read before the
first piece.
"""

from __future__ import annotations

from typing import Any

from longnet._core import Tensor, ops
from longnet.parallel.arrays import rows_of
from longnet.parallel.compact import Shard, zeros
from longnet.parallel.crossing import Crossing
from longnet.parallel.job import PIECE, Job
from longnet.parallel.messages import exchange_keys

Key = tuple[int, int]  # a segment's level and first row
Pair = tuple[Tensor, Tensor]  # keys and values (B*H, M, 1, D)
Wanted = tuple[Crossing, Pair, int]  # rows of a segment, for a pair that begins at a compact row

FEW = 16  # compact rows of a piece that are read one by one instead of with all rows of the piece


class Segments:
    """What is held of the segments that the present piece and later ones look at."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._held: dict[Key, Pair] = {}
        self._complete: set[Key] = set()  # those collected before the first piece

    def gather(self, k: Any, v: Any) -> None:
        """Collect what must be known before the first piece, from all rows of this rank and from
        the other ranks. Every rank calls."""
        job, causal = self._job, self._job.pattern.causal
        among = job.among_ranks()
        own = {_key(c): self._message(c, job.comm.rank) for c in among.plan.crossings}
        first = {_key(c): c.windows[job.comm.rank][0] for c in among.plan.crossings}
        few = all(c.rows(job.comm.rank) <= FEW * job.count for c in among.plan.crossings)
        if causal and few:
            for crossing in among.plan.crossings:
                key = _key(crossing)
                self._read_singly(among, (crossing, _pair(own[key]), first[key]), k, v)
        else:
            self._gather_pieces(own, first, k, v)
        if job.comm.size > 1:
            keys = exchange_keys(among, [own[_key(c)] for c in among.plan.crossings])()
            for crossing, *pair in zip(among.plan.looking, keys[::2], keys[1::2], strict=True):
                self._held[_key(crossing)] = (pair[0], pair[1])
                self._complete.add(_key(crossing))

    def _gather_pieces(self, own: dict[Key, Tensor], first: dict[Key, int], k: Any, v: Any) -> None:
        """Read piece by piece what other ranks need, and all that queries before a row need."""
        for begin, end in self._job.pieces():
            shard = self._job.shard(begin, end)
            wanted: list[Wanted] = []
            for crossing in shard.plan.crossings:
                key = _key(crossing)
                if key in own:
                    wanted.append((crossing, _pair(own[key]), first[key]))
                elif not self._job.pattern.causal:
                    wanted.append((crossing, self._opened(crossing), 0))
                    self._complete.add(key)
            self._read(shard, wanted, k, v)

    def add(self, shard: Shard, k: Tensor, v: Tensor) -> None:
        """Collect the rows of a piece that later pieces look at, and this one."""
        for crossing in shard.plan.crossings:
            if _key(crossing) not in self._complete:
                window = crossing.windows[PIECE]
                self._collect(
                    shard, (crossing, self._opened(crossing), 0), (k, v), shard.plan.begin, window
                )

    def keys(self, shard: Shard) -> list[Tensor]:
        """Keys and values of each segment that a piece looks at."""
        return [x for c in shard.plan.looking for x in self._held[_key(c)]]

    def close(self, shard: Shard) -> None:
        """Give up the segments that no later piece looks at."""
        for crossing in shard.plan.crossings:
            if PIECE + 1 not in crossing.windows:
                self._held.pop(_key(crossing), None)

    def _message(self, crossing: Crossing, rank: int) -> Tensor:
        job = self._job
        shape = (2, job.batch * job.pattern.heads, crossing.rows(rank), job.head_dim)
        return zeros(shape, job.dtype, job.device)

    def _opened(self, crossing: Crossing) -> Pair:
        """What is held of a segment: zeros for the rows not collected yet."""
        job = self._job
        if _key(crossing) not in self._held:
            rows = job.segment_rows(crossing) + max(crossing.zeros, default=0)
            shape = (job.batch * job.pattern.heads, rows, 1, job.head_dim)
            pair = (zeros(shape, job.dtype, job.device), zeros(shape, job.dtype, job.device))
            self._held[_key(crossing)] = pair
        return self._held[_key(crossing)]

    def _read(self, shard: Shard, wanted: list[Wanted], k: Any, v: Any) -> None:
        """Read what is wanted of a piece: all its rows, or single ones where they are few."""
        if all(crossing.rows(PIECE) <= FEW for crossing, _, _ in wanted):
            for one in wanted:
                self._read_singly(shard, one, k, v)
            return
        plan, offset = shard.plan, self._job.rows[0]
        first, last = plan.begin - offset, plan.end - offset
        rows = rows_of("k", k, first, last), rows_of("v", v, first, last)
        for one in wanted:
            self._collect(shard, one, rows, plan.begin, one[0].windows[PIECE])

    def _read_singly(self, shard: Shard, wanted: Wanted, k: Any, v: Any) -> None:
        """Read a shard's rows of a segment one by one, and add them together."""
        crossing, pair, first = wanted
        plan, offset = shard.plan, self._job.rows[0]
        window = crossing.windows[plan.rank]
        low, high = min(crossing.firsts), max(crossing.firsts)
        for name, x, array in (("k", pair[0], k), ("v", pair[1], v)):
            packed: Tensor | None = None
            for i, m in enumerate(range(*window)):
                begin = max(low + m * crossing.step, plan.begin)
                end = min(high + m * crossing.step + 1, plan.end)
                rows = rows_of(name, array, begin - offset, end - offset)
                if packed is None:
                    shape = (crossing.rows(plan.rank), x.shape[0], 1, x.shape[3])
                    packed = Tensor.empty(shape, rows.dtype, rows.device)
                starts = [start + m * crossing.step - begin for start in crossing.firsts]
                ops.gather_rows(packed[i], rows, starts, crossing.step)
            if packed is not None:
                source = packed.reshape(1, *packed.shape[:2], x.shape[3])
                self._add(shard, crossing, x, source, [0] * x.shape[0], 1, window, first)

    def _collect(
        self,
        shard: Shard,
        wanted: Wanted,
        rows: Pair,
        begin: int,
        window: tuple[int, int],
    ) -> None:
        """Add a window of compact rows, of rows from `begin` on, to a pair that begins at a compact
        row."""
        crossing, pair, first = wanted
        starts = [start + window[0] * crossing.step - begin for start in crossing.firsts]
        for x, source in zip(pair, rows, strict=True):
            self._add(shard, crossing, x, source, starts, crossing.step, window, first)

    def _add(
        self,
        shard: Shard,
        crossing: Crossing,
        x: Tensor,
        source: Tensor,
        starts: list[int],
        step: int,
        window: tuple[int, int],
        first: int,
    ) -> None:
        """Add rows `starts[h] + m step` of `source`, a window of compact rows, to `x`, which begins
        at compact row `first`."""
        part = Tensor.empty((x.shape[0], window[1] - window[0], x.shape[3]), x.dtype, source.device)
        ops.gather_rows(part, source, starts, step)
        ops.add_rows(x, part.to(x.device), [window[0] - first], 1)
        if first == 0:
            shard.clear(crossing, x, 0)


def _key(crossing: Crossing) -> Key:
    return crossing.level, crossing.start


def _pair(message: Tensor) -> Pair:
    """The keys and the values of a message (2, B*H, W, D)."""
    _, heads, rows, dim = message.shape
    return message[0].reshape(heads, rows, 1, dim), message[1].reshape(heads, rows, 1, dim)
