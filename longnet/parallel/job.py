"""A sequence that passes through a device piece by piece: which rows, and what each piece needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from longnet._core import DilatedAttention
from longnet.communicator import Communicator
from longnet.parallel.compact import Shard
from longnet.parallel.crossing import Crossing
from longnet.parallel.pattern import Pattern
from longnet.parallel.plan import Plan, make_plan

PIECE = 1  # its place among the three shards that its plan is made of


@dataclass(frozen=True)
class Job:
    """One rank's rows of a sequence, in pieces. A piece is planned as a shard between two others:
    the rows before it, and those after it.

    Attributes
    ----------
    attention : DilatedAttention
    comm : Communicator
        Of one rank where there are no others.
    pattern : Pattern
        Its shards are those of the ranks.
    piece : int
        Rows of a piece; the last one may be shorter.
    batch, head_dim : int
    dtype, device : str
    seed : int
    """

    attention: DilatedAttention
    comm: Communicator
    pattern: Pattern
    piece: int
    batch: int
    head_dim: int
    dtype: str
    device: str
    seed: int

    @cached_property
    def rows(self) -> tuple[int, int]:
        """This rank's rows [begin, end) of the sequence."""
        begin, end = self.pattern.bounds[self.comm.rank : self.comm.rank + 2]
        return begin, end

    @property
    def count(self) -> int:
        """Pieces of this rank."""
        begin, end = self.rows
        return -(-(end - begin) // self.piece)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Rows of each piece, in order."""
        begin, end = self.rows
        for first in range(begin, end, self.piece):
            yield first, min(first + self.piece, end)

    def shard(self, begin: int, end: int) -> Shard:
        """Rows [begin, end) as a shard whose neighbours are all other rows."""
        shards = (begin, end - begin, sum(self.pattern.shards) - end)
        return self._shard(make_plan(replace(self.pattern, shards=shards), PIECE))

    def among_ranks(self) -> Shard:
        """This rank's rows as its shard, with the segments alone that ranks share."""
        plan = make_plan(self.pattern, self.comm.rank)
        shared = tuple(c for c in plan.crossings if c.sources or c.readers)
        return self._shard(replace(plan, crossings=shared))

    def segment_rows(self, crossing: Crossing) -> int:
        """Compact rows of a segment that this rank's queries may look at."""
        rows = max(crossing.counts)
        if self.pattern.causal:
            end = self.rows[1]
            rows = min(rows, max(-((first - end) // crossing.step) for first in crossing.firsts))
        return rows

    def _shard(self, plan: Plan) -> Shard:
        """Keys of a segment are kept together, so that every piece is given all of them."""
        crossings = tuple(
            replace(c, keys=self.segment_rows(c)) if c.keys else c for c in plan.crossings
        )
        plan = replace(plan, crossings=crossings)
        heads = self.pattern.heads
        return Shard(self.attention, self.comm, plan, self.batch, heads, self.seed)
