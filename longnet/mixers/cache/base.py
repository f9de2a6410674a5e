"""What the caches of all kinds of attention are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.errors import ShapeError
from longnet.functional.buffers import zeros


class Cache(ABC):
    """The keys and values that later rows of one attention layer may look at.

    Parameters
    ----------
    batch : int
        B sequences, each of a length of its own.

    Attributes
    ----------
    seen : list of int
        Rows of each sequence so far.
    """

    def __init__(self, batch: int) -> None:
        if batch < 1:
            raise ShapeError(f"cache: found a batch of {batch}, expected at least 1")
        self.seen = [0] * batch

    @abstractmethod
    def arrays(self) -> dict[str, Tensor]:
        """Return all that is stored, by name."""

    def make_room(self, positions: int) -> None:  # noqa: B027  most need none
        """Prepare for sequences of so many rows."""

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(x.nbytes for x in self.arrays().values())

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, counts: Sequence[int] | None = None
    ) -> Tensor:
        """Attention of the rows that follow those seen; they are seen then too.

        Parameters
        ----------
        q : Tensor (B, n, H, D)
        k, v : Tensor (B, n, Hk, D)
        counts : sequence of int, optional
            How many of the n rows each sequence has, 0 to n; all by default. What is returned of
            the others is 0.

        Returns
        -------
        Tensor (B, n, H, D)

        Raises
        ------
        ShapeError
            B is not that of the cache, or `counts` are not B numbers from 0 to n.
        """
        B, n = q.shape[:2]
        if len(self.seen) != B:
            raise ShapeError(f"cache: found a batch of {B}, expected {len(self.seen)}")
        counts = [n] * B if counts is None else counts
        if len(counts) != B or min(counts) < 0 or max(counts) > n:
            raise ShapeError(f"cache: found the counts {counts}, expected {B} from 0 to {n}")
        before = self.seen
        # First of all, so that a call that is interrupted shows in it.
        self.seen = [a + count for a, count in zip(before, counts, strict=True)]
        self.make_room(max(self.seen))
        if n == 1:
            return self._attend_one(q, k, v, before, counts)
        if B == 1 and counts[0] == n:
            return self._attend_piece(0, before[0], q, k, v)
        out = zeros(q.shape, q)
        for b, count in enumerate(counts):
            if count:
                piece = (x[b : b + 1, :count] for x in (q, k, v))
                ops.cast(out[b : b + 1, :count], self._attend_piece(b, before[b], *piece))
        return out

    def state(self) -> dict[str, np.ndarray]:
        """Return what is stored, on the host."""
        return {name: x.to("cpu").numpy() for name, x in self.arrays().items()}

    def restore(self, seen: Sequence[int], state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` gave when so many rows of each sequence had been seen.

        Raises
        ------
        ShapeError
            An array is missing or of another shape, or there is another number of sequences.
        """
        if len(seen) != len(self.seen):
            raise ShapeError(f"found {len(seen)} sequences, expected {len(self.seen)}")
        names = list(self.arrays())
        if set(state) != set(names):
            expected = ", ".join(names[:-1])
            raise ShapeError(
                f"found the arrays {sorted(state)}, expected {expected} and {names[-1]}"
            )
        self.make_room(max(seen))
        buffers = self.arrays()
        for name, buffer in buffers.items():
            if state[name].shape != buffer.shape:
                raise ShapeError(
                    f"{name}: found shape {state[name].shape}, expected {buffer.shape}"
                )
        for name, buffer in buffers.items():
            ops.cast(buffer, Tensor(np.ascontiguousarray(state[name])).to(buffer.device))
        self.seen = list(seen)

    @abstractmethod
    def _attend_one(
        self, q: Tensor, k: Tensor, v: Tensor, before: Sequence[int], counts: Sequence[int]
    ) -> Tensor:
        """One row of each sequence that has one."""

    @abstractmethod
    def _attend_piece(self, b: int, before: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Rows (1, n, ...) of sequence b, of which `before` came earlier."""


attention = lru_cache(maxsize=256)(DilatedAttention)  # of which a step needs the same ones


def look_back(
    q: Tensor, keys: Tensor, values: Tensor, shown: Sequence[int], scale: float | None
) -> tuple[Tensor, Tensor]:
    """Return output and LSE of one query each (B, 1, H, D) to the first so many rows of keys and
    values (B, M, Hk, D)."""
    lengths = _lengths(q.device, *shown)
    return attention((keys.shape[1],), (1,), False, scale=scale).forward(
        q, keys, values, lengths=lengths, query_start=0
    )


@lru_cache(maxsize=64)  # the layers of a model ask for the same
def _lengths(device: str, *lengths: int) -> Tensor:
    return Tensor(np.array(lengths, np.int64)).to(device)
