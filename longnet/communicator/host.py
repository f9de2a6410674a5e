"""Collectives on host tensors, composed of messages between two ranks.

Each message is announced by what it is, such as ``all_gather float32 (3, 4)``, so that ranks that
do different things are told so before a byte of theirs is written anywhere. Messages from one rank
to another arrive in the order in which they were sent.
"""

from __future__ import annotations

import pickle
import time
from abc import abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longnet._core import Tensor
from longnet.communicator import checks, reduction
from longnet.communicator.checks import ranks_named
from longnet.communicator.protocol import Communicator, Message, Work
from longnet.errors import CommunicatorError

Bytes = NDArray[np.uint8]

# Up to so many bytes, every rank gets all parts of a reduction: half the delay of two stages.
ONE_STAGE = 8192
# Second stages of reductions run on channels of their own: when they start depends on when a rank
# waits, which must not change the order of messages.
CHANNELS = 4096


class Transfer:
    """One message under way to or from `peer`."""

    def __init__(self, name: str, peer: int, what: str, data: Bytes) -> None:
        self.name = name
        self.peer = peer
        self.what = what
        self.data = data
        self.done = False


Steps = Iterator[list[Transfer]]


class HostWork(Work):
    """A method's transfers, in steps of which each starts when the one before is done."""

    def __init__(self, communicator: HostCommunicator, name: str, steps: Steps) -> None:
        self.name = name
        self.done = False
        self._communicator = communicator
        self._steps = steps
        self._transfers: list[Transfer] = []
        self.advance()

    def advance(self) -> None:
        """Start every step that can start."""
        while not self.done and all(transfer.done for transfer in self._transfers):
            transfers = next(self._steps, None)
            self.done = transfers is None
            self._transfers = transfers or []

    def peers(self) -> list[int]:
        """The ranks it waits for."""
        return sorted({transfer.peer for transfer in self._transfers if not transfer.done})

    def wait(self) -> None:
        """Complete the transfers; the host has no stream that could wait instead."""
        if not self.done:
            self._communicator.finish(self)


class HostCommunicator(Communicator):
    """A communicator of host tensors; a subclass carries the messages."""

    def __init__(self, rank: int, size: int, timeout: float) -> None:
        super().__init__(rank, size, timeout, "cpu")
        self._works: list[HostWork] = []
        self._expected: defaultdict[tuple[int, int], deque[Transfer]] = defaultdict(deque)
        self._reductions = 0
        # This rank's communicators that were split from one: a rank that waits in one of them
        # carries on what the others wait for in another.
        self._family: list[HostCommunicator] = [self]

    def finish(self, work: HostWork) -> None:
        """Carry all works on until `work` is done, its deadline is over, or a rank has failed."""
        self._check_open(work.name)
        deadline = time.monotonic() + self.timeout
        idle = 0
        with self._guard():
            while True:
                self._progress()
                if work.done:
                    return
                trouble = self._trouble(work.peers())
                if trouble is not None:
                    self._failure = trouble
                    raise self._error(work.name, trouble)
                left = deadline - time.monotonic()
                if left <= 0:
                    happened = f"waited {self.timeout:g} s for {ranks_named(work.peers())}"
                    raise self._give_up(work.name, happened)
                self._pause(idle, left)
                idle += 1

    def barrier(self) -> None:
        """Return once every rank has called it."""
        self._check_open("barrier")
        nothing = np.empty(0, np.uint8)
        parts = [nothing] * self.size
        self._run("barrier", self._to_all("barrier", "barrier", parts, parts), True)

    def gather_objects(self, value: object) -> list[Any]:
        """Return every rank's `value`, in the order of ranks: a small one that pickle takes."""
        name = "gather_objects"
        self._check_open(name)
        own = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = np.empty((self.size, 1), np.int64)
        sizes[self.rank] = own.size
        self._run(name, self._gather(name, "size", sizes), True)
        parts = [np.empty(int(size), np.uint8) for size in sizes[:, 0]]
        parts[self.rank] = own
        self._run(name, self._to_all(name, "object", [own] * self.size, parts), True)
        return [pickle.loads(part.tobytes()) for part in parts]

    def _all_gather(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None:
        result = checks.writable("all_gather", "out", out)
        result[self.rank] = x.numpy()
        return self._run("all_gather", self._gather("all_gather", "", result), blocking)

    def _broadcast(self, x: Tensor, root: int, blocking: bool) -> Work | None:
        memory = _bytes(checks.writable("broadcast", "x", x))

        def steps() -> Steps:
            what = f"broadcast from rank {root} {x.dtype} {x.shape}"
            if self.rank == root:
                yield [self._send("broadcast", peer, what, memory) for peer in self._others()]
            else:
                yield [self._receive("broadcast", root, what, memory)]

        return self._run("broadcast", steps(), blocking)

    def _exchange(
        self, name: str, sends: list[Message], receives: list[Message], blocking: bool
    ) -> Work | None:
        for _, x in receives:
            checks.writable(name, "x", x)

        def steps() -> Steps:
            own = ([x.numpy() for p, x in each if p == self.rank] for each in (sends, receives))
            for x, out in zip(*own, strict=True):
                out[...] = x
            yield [
                call(name, peer, f"message {x.dtype} {x.shape}", _bytes(x.numpy()))
                for call, each in ((self._send, sends), (self._receive, receives))
                for peer, x in each
                if peer != self.rank
            ]

        return self._run(name, steps(), blocking)

    def _reduce_scatter(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None:
        result = checks.writable("reduce_scatter", "out", out).reshape(-1)

        def steps() -> Steps:
            name = "reduce_scatter"
            parts = x.numpy().reshape(self.size, -1)
            received = np.empty_like(parts)
            received[self.rank] = parts[self.rank]
            what = f"{name} {x.dtype} {x.shape}"
            yield from self._to_all(name, what, list(parts), list(received))
            reduction.reduce(result, received, "sum")

        return self._run("reduce_scatter", steps(), blocking)

    def _all_reduce(self, x: Tensor, op: str, blocking: bool) -> Work | None:
        what = f"all_reduce {op} {x.dtype} {x.shape}"
        flat = checks.writable("all_reduce", "x", x).reshape(-1)
        steps = self._reduce_at_once if x.nbytes <= ONE_STAGE else self._reduce_in_parts
        return self._run("all_reduce", steps(flat, op, what), blocking)

    def _reduce_at_once(self, x: NDArray[Any], op: str, what: str) -> Steps:
        received = np.empty((self.size, x.size), x.dtype)
        received[self.rank] = x
        yield from self._to_all("all_reduce", what, [x] * self.size, list(received))
        reduction.reduce(x, received, op)

    def _reduce_in_parts(self, x: NDArray[Any], op: str, what: str) -> Steps:
        """Each rank reduces one part of x and sends the result to all."""
        self._reductions += 1
        channel = 1 + self._reductions % (CHANNELS - 1)
        borders = [x.size * rank // self.size for rank in range(self.size + 1)]
        parts = [x[a:b] for a, b in pairwise(borders)]
        own = parts[self.rank]
        received = np.empty((self.size, own.size), x.dtype)
        received[self.rank] = own
        yield from self._to_all("all_reduce", what, parts, list(received))
        reduction.reduce(own, received, op)
        yield from self._to_all("all_reduce", what, [own] * self.size, parts, channel)

    def _gather(self, name: str, what: str, result: NDArray[Any]) -> Steps:
        """Fill `result`, which has this rank's part in its place."""
        described = f"{name} {what or result.dtype.name} {result.shape[1:]}"
        result = result.reshape(self.size, -1)
        own = result[self.rank]
        return self._to_all(name, described, [own] * self.size, list(result))

    def _to_all(
        self,
        name: str,
        what: str,
        sends: list[NDArray[Any]],
        receives: list[NDArray[Any]],
        channel: int = 0,
    ) -> Steps:
        """Send an array to each rank and receive one from each; this rank's own are left out."""
        yield [
            call(name, peer, what, _bytes(arrays[peer]), channel)
            for call, arrays in ((self._send, sends), (self._receive, receives))
            for peer in self._others()
        ]

    def _others(self) -> list[int]:
        """The other ranks, the next one first, so that not all begin with rank 0."""
        return [(self.rank + i) % self.size for i in range(1, self.size)]

    def _run(self, name: str, steps: Steps, blocking: bool) -> Work | None:
        with self._guard():
            work = HostWork(self, name, steps)
            self._works.append(work)
        if blocking:
            work.wait()
            return None
        return work

    def _progress(self) -> None:
        for communicator in self._family:
            communicator._carry()
            for work in communicator._works:
                work.advance()
            communicator._works = [work for work in communicator._works if not work.done]

    def _adopt(self, child: HostCommunicator) -> Communicator:
        child._family = self._family
        self._family.append(child)
        return child

    def _close(self) -> None:
        self._family.remove(self)

    def _receive(self, name: str, peer: int, what: str, data: Bytes, channel: int = 0) -> Transfer:
        transfer = Transfer(name, peer, what, data)
        self._expected[peer, channel].append(transfer)
        return transfer

    def _check_announced(self, transfer: Transfer, announced: str) -> None:
        """Raise on every rank if the next message of a rank is not what `transfer` expects."""
        if announced != transfer.what:
            happened = f"rank {transfer.peer} has {announced}, expected {transfer.what}"
            raise self._give_up(transfer.name, happened)

    def _give_up(self, name: str, happened: str) -> CommunicatorError:
        error = self._error(name, happened)
        self._fail(str(error))
        return error

    # What a subclass provides.

    @abstractmethod
    def _send(self, name: str, peer: int, what: str, data: Bytes, channel: int = 0) -> Transfer:
        """Start sending `data`, announced as `what`."""

    @abstractmethod
    def _carry(self) -> None:
        """Move what can move without waiting: transfers sent, and those of `_expected`."""

    @abstractmethod
    def _trouble(self, peers: list[int]) -> str | None:
        """Why waiting for `peers` is in vain, as far as is known."""

    @abstractmethod
    def _pause(self, idle: int, left: float) -> None:
        """Wait a little, `left` seconds at most, for the `idle`-th time in a row."""

    def _guard(self) -> AbstractContextManager[Any]:
        """What must be held while transfers start and move."""
        return nullcontext()


def _bytes(x: NDArray[Any]) -> Bytes:
    return x.reshape(-1).view(np.uint8)
