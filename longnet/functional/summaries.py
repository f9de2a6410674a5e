"""The summary columns of the fixed pattern, from all ranks that hold some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from longnet._core import Tensor
from longnet.functional.buffers import empty, zeros
from longnet.functional.fixed_rows import Entry, FixedPattern
from longnet.functional.shard import Shard


class Summaries:
    """Columns of all blocks before a rank's last one, of each sequence.

    Rows of one block's columns may be of several ranks: each gives its own, with zeros for the
    others', and they are added up.

    Parameters
    ----------
    pattern : FixedPattern
    shard : Shard
    entries : sequence of (slice, int, int)
        The sequences.
    """

    def __init__(self, pattern: FixedPattern, shard: Shard, entries: Sequence[Entry]) -> None:
        self._pattern = pattern
        self._shard = shard
        self._entries = entries
        rank, size = shard.rank, len(shard.spans)
        self._incoming = list(self._messages((peer, rank, peer) for peer in range(rank)))
        self._outgoing = list(self._messages((rank, peer, peer) for peer in range(rank + 1, size)))

    def fetch(self, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """Let later ranks have the columns among this rank's rows of k and v (B, L, Hk, D).

        Returns
        -------
        tuple of Tensor
            What arrived, for `columns`.
        """
        packed = {
            (i, blocks): [self._pack(x, i, blocks) for x in (k, v)]
            for i, blocks in {found[1:] for found in self._outgoing}  # mostly of several readers
        }
        sends = [(peer, x) for peer, i, blocks in self._outgoing for x in packed[i, blocks]]
        return self._exchange(sends, self._incoming, k)

    def columns(self, k: Tensor, v: Tensor, arrived: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return the columns of keys and of values (B * H, M, 1, D) of each sequence."""
        found = []
        for i, entry in enumerate(self._entries):
            count = self._needed(entry, self._shard.rank)
            BH = self._items(entry) * self._pattern.heads
            shape = (BH, count * self._pattern.columns, 1, k.shape[3])
            own = self._travelling(entry, self._shard.rank, self._shard.rank)
            found.append([zeros(shape, x) for x in (k, v)])
            for x, whole in zip((k, v), found[-1], strict=True):
                self._pattern.show(whole, own, self._pack(x, i, own))
        for at, (_, i, blocks) in enumerate(self._incoming):
            for whole, packed in zip(found[i], arrived[2 * at : 2 * at + 2], strict=True):
                self._pattern.show(whole, blocks, packed)
        return found

    def give_back(self, sums: Sequence[Sequence[Tensor]], gradients: Sequence[Tensor]) -> None:
        """Add the gradients of all ranks' columns to those of this rank's rows.

        Parameters
        ----------
        sums : sequence of (Tensor, Tensor)
            For each sequence, as `columns` returns them; float32.
        gradients : sequence of Tensor (B, L, Hk, D) float32
            Of keys and values.
        """
        sends = [
            (peer, self._pattern.take(x, blocks))
            for peer, i, blocks in self._incoming
            for x in sums[i]
        ]
        arrived = self._exchange(sends, self._outgoing, gradients[0])
        for i, entry in enumerate(self._entries):
            own = self._travelling(entry, self._shard.rank, self._shard.rank)
            for x, whole in zip(gradients, sums[i], strict=True):
                self._add(x, i, own, self._pattern.take(whole, own))
        for at, (_, i, blocks) in enumerate(self._outgoing):
            for x, packed in zip(gradients, arrived[2 * at : 2 * at + 2], strict=True):
                self._add(x, i, blocks, packed)

    def _exchange(
        self,
        sends: list[tuple[int, Tensor]],
        messages: Sequence[tuple[int, int, range]],
        like: Tensor,
    ) -> tuple[Tensor, ...]:
        """Send packed columns and return those of `messages`, two tensors each."""
        heads, columns, D = self._pattern.heads, self._pattern.columns, like.shape[3]
        receives = []
        for peer, i, blocks in messages:
            shape = (len(blocks), self._items(self._entries[i]) * heads, columns, D)
            receives += [(peer, empty(shape, like)) for _ in range(2)]
        if self._shard.comm is not None:
            self._shard.comm.exchange(sends, receives)
        return tuple(x for _, x in receives)

    def _messages(self, pairs: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, range]]:
        """Peers, sequences and blocks, for pairs of a rank that has columns and one that looks."""
        for owner, reader, peer in pairs:
            for i, entry in enumerate(self._entries):
                blocks = self._travelling(entry, owner, reader)
                if blocks:
                    yield peer, i, blocks

    def _travelling(self, entry: Entry, owner: int, reader: int) -> range:
        """Blocks of which one rank has rows and whose columns another one's queries look at."""
        rows = self._rows(entry, owner)
        first, block = entry[1], self._pattern.block
        last = min(-(-(rows.stop - first) // block), self._needed(entry, reader))
        return range((rows.start - first) // block, last) if rows else range(0)

    def _needed(self, entry: Entry, rank: int) -> int:
        """How many blocks lie before the last one of a rank's rows."""
        rows = self._rows(entry, rank)
        return (rows.stop - 1 - entry[1]) // self._pattern.block if rows else 0

    def _rows(self, entry: Entry, rank: int) -> range:
        """A rank's rows of a sequence."""
        span = self._shard.spans[rank]
        return range(max(span.begin, entry[1]), min(span.end, entry[2]))

    def _items(self, entry: Entry) -> int:
        """Sequences of an entry."""
        return entry[0].stop - entry[0].start

    def _pack(self, x: Tensor, i: int, blocks: range) -> Tensor:
        items, first, _ = self._entries[i]
        return self._pattern.pack(x[items], self._shard.span.begin - first, blocks)

    def _add(self, x: Tensor, i: int, blocks: range, packed: Tensor) -> None:
        items, first, _ = self._entries[i]
        self._pattern.add(x[items], self._shard.span.begin - first, blocks, packed)
