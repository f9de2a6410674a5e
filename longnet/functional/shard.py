"""Attention whose keys lie a bounded way back, of sequences in one place or on many ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.communicator import Communicator
from longnet.errors import LongNetError
from longnet.functional.buffers import as_tensor, empty
from longnet.functional.sequences import Sequences, Span
from longnet.parallel.agreement import agree_on_pattern


class Shard:
    """A rank's rows, and those just before them that its queries look at: its *halo*.

    The halo's rows are other ranks', of several where their shards are short.

    Parameters
    ----------
    comm : Communicator or None
        Its ranks hold the sequences in their order; None for all in one place.
    sequences : Sequences
        The whole.
    bounds : sequence of int
        First row of every rank, and N.
    reach : function
        How many rows the halo has, of the number of rows that its sequence has before the rank's.

    Attributes
    ----------
    comm : Communicator or None
    rank : int
    spans : list of Span
        Of every rank.
    lent, borrowed : list of (int, int, int)
        Later ranks, and the rows [first, end) of this one in their halos; earlier ranks, and their
        rows in this one's halo.
    """

    def __init__(
        self,
        comm: Communicator | None,
        sequences: Sequences,
        bounds: Sequence[int],
        reach: Callable[[int], int],
    ) -> None:
        self.comm = comm
        self.rank = 0 if comm is None else comm.rank
        self.spans = []
        for begin, end in pairwise(bounds):
            halo = reach(begin - sequences.begin_of(begin)) if begin < end else 0
            self.spans.append(Span(sequences, begin - halo, begin, end))
        self.lent = [
            found
            for peer in range(self.rank + 1, len(self.spans))
            for found in _overlap(peer, self.spans[peer], self.span)
        ]
        self.borrowed = [
            found
            for peer in range(self.rank)
            for found in _overlap(peer, self.span, self.spans[peer])
        ]

    @classmethod
    def agreed(
        cls,
        name: str,
        make: Callable[[], DilatedAttention],
        comm: Communicator | None,
        tensors: Sequence[Tensor],
        reach: Callable[[int], int],
        *,
        lengths: np.ndarray | Tensor | None,
        cu_seqlens: np.ndarray | Tensor | None,
        seed: int,
    ) -> Shard:
        """Check a call with all ranks, and return what this one has of it.

        Parameters
        ----------
        name : str
            Begins messages.
        make : function
            Returns what is to be the same on all ranks, or raises what does not fit.
        comm, reach
            As above.
        tensors : sequence of Tensor
            q, k and v of this rank's rows.
        lengths, cu_seqlens, seed
            Of the whole sequence.

        Raises
        ------
        TypeError, ShapeError, DTypeError, DeviceError, ConfigError
            Something does not fit, on all ranks and before anything is sent.
        """
        if comm is None and lengths is None and cu_seqlens is None and _match(*tensors):
            make()
            batch, rows = tensors[0].shape[:2]
            return cls(None, Sequences(batch, rows), (0, rows), reach)
        wrong: LongNetError | None = None
        try:
            attention = make()
        except LongNetError as error:
            attention, wrong = DilatedAttention([1], [1]), error

        def inputs() -> tuple[Sequence[Tensor], int]:
            if wrong is not None:
                raise wrong
            return tensors, tensors[1].shape[1] if tensors[1].ndim > 1 else 0  # refused then

        options: dict[str, Any] = {"lengths": lengths, "cu_seqlens": cu_seqlens, "seed": seed}
        found = agree_on_pattern(name, attention, comm, inputs, **options)
        batch, total = tensors[0].shape[0], found.bounds[-1]
        sequences = Sequences(batch, total, found.lengths, found.cu_seqlens)
        return cls(comm, sequences, found.bounds, reach)

    @property
    def span(self) -> Span:
        """This rank's."""
        return self.spans[self.rank]

    def fetch(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Let ranks have rows of tensors (B, L, ...) as far as their halos reach.

        Returns
        -------
        tuple of Tensor
            What arrived, for `extend`.
        """
        begin = self.span.begin
        sends = [
            (peer, as_tensor(x[:, a - begin : e - begin]))
            for peer, a, e in self.lent
            for x in tensors
        ]
        receives = [(peer, _room(x, e - a)) for peer, a, e in self.borrowed for x in tensors]
        if self.comm is not None:
            self.comm.exchange(sends, receives)
        return tuple(x for _, x in receives)

    def extend(self, tensors: Sequence[Tensor], arrived: Sequence[Tensor]) -> list[Tensor]:
        """Return tensors (B, L, ...) with the rows of their halos before them, of which `fetch` of
        these tensors gave what `arrived`."""
        first, begin, end = self.span.first, self.span.begin, self.span.end
        if first == begin:
            return list(tensors)
        found = []
        for i, x in enumerate(tensors):
            whole = _room(x, end - first)
            for (_, a, _), part in zip(self.borrowed, arrived[i :: len(tensors)], strict=True):
                put_rows(whole, a - first, part)
            put_rows(whole, begin - first, x)
            found.append(whole)
        return found

    def give_back(self, *gradients: Tensor) -> list[Tensor]:
        """Return the gradients of this rank's rows from every rank's of its rows and its halo: all
        float32, summed in the order of ranks."""
        first, begin = self.span.first, self.span.begin
        sends = [
            (peer, as_tensor(x[:, a - first : e - first]))
            for peer, a, e in self.borrowed
            for x in gradients
        ]
        receives = [(peer, _room(x, e - a)) for peer, a, e in self.lent for x in gradients]
        if self.comm is not None:
            self.comm.exchange(sends, receives)
        found = []
        for i, x in enumerate(gradients):
            own = as_tensor(x[:, begin - first :])
            for (_, a, _), (_, part) in zip(self.lent, receives[i :: len(gradients)], strict=True):
                add_rows(own, a - begin, part)
            found.append(own)
        return found


def _match(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the shapes go together, so that attention itself says what else does not fit."""
    if q.ndim != 4 or k.shape != v.shape or k.ndim != 4:
        return False
    (B, N, H, D), (Bk, Nk, Hk, Dk) = q.shape, k.shape
    return (Bk, Nk, Dk) == (B, N, D) and H % max(1, Hk) == 0


def _overlap(peer: int, reader: Span, owner: Span) -> Iterator[tuple[int, int, int]]:
    begin, end = max(reader.first, owner.begin), min(reader.begin, owner.end)
    if begin < end:
        yield peer, begin, end


def put_rows(x: Tensor, at: int, part: Tensor) -> None:
    """Make part (B, M, ...) the rows of x (B, N, ...) from `at` on."""
    for b in range(x.shape[0]):
        ops.cast(x[b, at : at + part.shape[1]], part[b])


def add_rows(x: Tensor, at: int, part: Tensor) -> None:
    """Add part (B, M, ...) to the rows of x (B, N, ...) from `at` on."""
    for b in range(x.shape[0]):
        rows = x[b, at : at + part.shape[1]]
        ops.add(rows, rows, part[b], 1.0)


def _room(like: Tensor, rows: int) -> Tensor:
    return empty((like.shape[0], rows, *like.shape[2:]), like)
