"""Ranks that can be told to move nothing: what a step takes without its communication."""

from __future__ import annotations

from typing import Any

from longnet._core import Tensor, ops
from longnet.communicator import Communicator, Work
from longnet.communicator.protocol import Message


class Nothing(Work):
    """A transfer of nothing."""

    def wait(self) -> None:
        """Return at once."""


class Switch(Communicator):
    """The ranks of another communicator; while `moving` is False nothing goes between them.

    What would have arrived is then zeros in messages and what the tensors held in collectives, and
    an object of any rank is this one's. So everything is computed as it is otherwise, but from
    other numbers.
    """

    def __init__(self, inner: Communicator) -> None:
        super().__init__(inner.rank, inner.size, inner.timeout, inner.device)
        self._inner = inner
        self.moving = True

    def barrier(self) -> None:
        """Wait for all ranks, if anything moves."""
        if self.moving:
            self._inner.barrier()

    def gather_objects(self, value: object) -> list[Any]:
        """Return every rank's value, or this one's for each."""
        return self._inner.gather_objects(value) if self.moving else [value] * self.size

    def _all_gather(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None:
        if self.moving:
            return self._inner.all_gather(out, x, blocking=blocking)
        return Nothing()

    def _reduce_scatter(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None:
        if self.moving:
            return self._inner.reduce_scatter(out, x, blocking=blocking)
        return Nothing()

    def _all_reduce(self, x: Tensor, op: str, blocking: bool) -> Work | None:
        if self.moving:
            return self._inner.all_reduce(x, op, blocking=blocking)
        return Nothing()

    def _broadcast(self, x: Tensor, root: int, blocking: bool) -> Work | None:
        if self.moving:
            return self._inner.broadcast(x, root, blocking=blocking)
        return Nothing()

    def _exchange(
        self, name: str, sends: list[Message], receives: list[Message], blocking: bool
    ) -> Work | None:
        if self.moving:
            return self._inner.exchange(sends, receives, blocking=blocking)
        for _, x in receives:
            ops.fill(x, 0.0)
        return Nothing()

    def _split(self, color: int | None, members: list[int]) -> Communicator | None:
        return self._inner._split(color, members)

    def _abort(self, reason: str) -> None:
        self._inner.abort(reason)

    def _close(self) -> None:
        self._inner.close()
