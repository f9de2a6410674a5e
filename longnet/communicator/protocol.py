"""What every communicator does: its methods, and the names of their errors.

Arguments are checked here, before anything is sent; how bytes travel is up to the subclasses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from longnet._core import Tensor
from longnet.communicator import checks
from longnet.communicator.checks import Array
from longnet.errors import CommunicatorError, ConfigError

DEFAULT_TIMEOUT = 600.0  # seconds: the slowest rank may be writing a checkpoint

Messages = Sequence[tuple[int, Array]]  # peers and what they get or send
Message = tuple[int, Tensor]


class Work(ABC):
    """A transfer that was started and may still be under way."""

    @abstractmethod
    def wait(self) -> None:
        """Complete the transfer; on a GPU, make the current stream wait for it.

        A second call does nothing. The tensors must stay untouched until it returns; on a GPU, by
        everything but what the current stream runs after it.

        Raises
        ------
        CommunicatorError
            The transfer failed or was not complete by its deadline.
        """


class Communicator(ABC):
    """Ranks that exchange tensors, each calling the same methods in the same order.

    Tensors are contiguous and lie on `device`; host communicators also take NumPy arrays. Methods
    that move tensors take ``blocking=True``; with False they return a `Work`.

    Attributes
    ----------
    rank, size : int
        This rank's number, from 0, and how many ranks there are.
    timeout : float
        Seconds that any call waits for the other ranks before it fails on all of them.
    device : str
        'cpu' or 'cuda:N'.
    bytes_sent, bytes_received : int
        Payload that went to and came from other ranks so far. Of an `all_reduce` it is what
        exchanging its two halves takes: 2 (size - 1) / size of the tensor each way.
    """

    def __init__(self, rank: int, size: int, timeout: float, device: str) -> None:
        if not timeout > 0:
            raise ConfigError(f"timeout: found {timeout}, expected more than 0 seconds")
        self.rank = rank
        self.size = size
        self.timeout = float(timeout)
        self.device = device
        self.bytes_sent = 0
        self.bytes_received = 0
        self._failure: str | None = None  # why no further call can succeed
        self._closed = False

    @staticmethod
    def from_environment(
        device: str | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> Communicator:
        """Join the ranks that torchrun, mpirun or srun has started, or be the only one.

        Parameters
        ----------
        device : str, optional
            'cuda' for the GPU of this rank's number on its host, or 'cuda:N', through NCCL;
            'cpu' for MPI through mpi4py. By default the GPU where there is one.
        timeout : float
            Seconds that any call waits.

        Raises
        ------
        CommunicatorError
            The launcher's variables contradict each other, a library is missing (the message names
            what to install), or not all ranks have come by the deadline.
        """
        from longnet.communicator import environment

        return environment.from_environment(device, timeout)

    @staticmethod
    def threads(size: int, timeout: float = DEFAULT_TIMEOUT) -> list[Communicator]:
        """Return `size` host communicators of one process, one for each of its threads."""
        from longnet.communicator import threads

        return list(threads.communicators(size, timeout))

    def all_gather(self, out: Array, x: Array, *, blocking: bool = True) -> Work | None:
        """Write every rank's `x` (any shape) to `out` (size, \\*x.shape), in the order of ranks;
        `x` may be ``out[rank]`` itself.

        Raises
        ------
        ShapeError, DTypeError, DeviceError
            The tensors do not fit each other or are not contiguous on `device`. As in every
            method, before anything is sent.
        CommunicatorError
            As in every method: names this rank, the method and what happened.
        """
        out_, x_ = self._tensors("all_gather", out=out, x=x)
        checks.like("all_gather", "out", out_, (self.size, *x_.shape), x_)
        self._count((self.size - 1) * x_.nbytes, (self.size - 1) * x_.nbytes)
        return self._all_gather(out_, x_, blocking)

    def reduce_scatter(self, out: Array, x: Array, *, blocking: bool = True) -> Work | None:
        """Write to `out` the sum over the ranks of their ``x[rank]``; `x` is (size, \\*out.shape).

        `out` may be ``x[rank]`` itself. The order of the sum depends on the number of ranks alone;
        on the host it is theirs, and 16-bit floats are summed in float32 and rounded once.
        """
        out_, x_ = self._tensors("reduce_scatter", out=out, x=x)
        checks.like("reduce_scatter", "x", x_, (self.size, *out_.shape), out_)
        self._count((self.size - 1) * out_.nbytes, (self.size - 1) * out_.nbytes)
        return self._reduce_scatter(out_, x_, blocking)

    def all_reduce(self, x: Array, op: str = "sum", *, blocking: bool = True) -> Work | None:
        """Replace `x` by the sum ('sum') or the largest ('max') of all ranks' elements.

        Every rank gets the same bits; sums are as in `reduce_scatter`. NaN is the largest of all.
        """
        if op not in ("sum", "max"):
            raise ConfigError(f"all_reduce: op: found {op!r}, expected 'sum' or 'max'")
        (x_,) = self._tensors("all_reduce", x=x)
        self._count(*[2 * (self.size - 1) * x_.nbytes // self.size] * 2)
        return self._all_reduce(x_, op, blocking)

    def broadcast(self, x: Array, root: int = 0, *, blocking: bool = True) -> Work | None:
        """Replace `x` by that of rank `root`."""
        (x_,) = self._tensors("broadcast", x=x)
        self._peer("broadcast", "root", root)
        sent = (self.size - 1) * x_.nbytes
        self._count(*(sent, 0) if self.rank == root else (0, x_.nbytes))
        return self._broadcast(x_, root, blocking)

    def send(self, x: Array, peer: int, *, blocking: bool = True) -> Work | None:
        """Send `x` to rank `peer`, which calls `recv`."""
        return self._start_exchange("send", [(peer, x)], [], blocking)

    def recv(self, x: Array, peer: int, *, blocking: bool = True) -> Work | None:
        """Fill `x` with what rank `peer` sends: the same shape and dtype."""
        return self._start_exchange("recv", [], [(peer, x)], blocking)

    def exchange(
        self,
        sends: Messages,
        receives: Messages,
        *,
        blocking: bool = True,
    ) -> Work | None:
        """Send and receive any number of tensors as one call.

        Parameters
        ----------
        sends, receives : sequence of (peer, tensor)
            Several to or from one peer match in their order, shapes and dtypes being the same on
            both sides. The peer may be this rank. A rank with nothing to do may stay away.
        """
        return self._start_exchange("exchange", sends, receives, blocking)

    @abstractmethod
    def barrier(self) -> None:
        """Return once every rank has called it. On a GPU the host waits, the device does not."""

    @abstractmethod
    def gather_objects(self, value: object) -> list[Any]:
        """Return every rank's `value`, in the order of ranks: a small one that pickle takes.

        Goes through the host and allocates nothing on a GPU.
        """

    def agree(self, what: str, value: object) -> None:
        """Check that every rank has the same `value` (by ``==``) of what is called `what`.

        Raises
        ------
        ConfigError
            On every rank, if they differ: names the ranks, and what was found and expected.
        """
        checks.same(what, self.gather_objects(value))

    def split(self, color: int | None, key: int | None = None) -> Communicator | None:
        """Return a communicator of the ranks that give the same `color`; None for None.

        Every rank calls it. The new order is that of `key`, then of the old ranks.
        """
        places = self.gather_objects((color, self.rank if key is None else key))
        members = [rank for rank, (other, _) in enumerate(places) if other == color]
        members.sort(key=lambda rank: (places[rank][1], rank))
        return self._split(color, members)

    def abort(self, reason: str) -> None:
        """Make every call fail on all ranks, those that wait now too; the message has `reason`."""
        if not self._closed:
            self._fail(f"rank {self.rank} aborted: {reason}")

    def close(self) -> None:
        """Give back what the communicator holds; every later call but this fails."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        if kind is not None:
            self.abort(f"{kind.__name__}: {error}")
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} rank {self.rank} of {self.size} on {self.device}>"

    # What a subclass provides. Its arguments are checked, and its sizes counted.

    @abstractmethod
    def _all_gather(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None: ...

    @abstractmethod
    def _reduce_scatter(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None: ...

    @abstractmethod
    def _all_reduce(self, x: Tensor, op: str, blocking: bool) -> Work | None: ...

    @abstractmethod
    def _broadcast(self, x: Tensor, root: int, blocking: bool) -> Work | None: ...

    @abstractmethod
    def _exchange(
        self, name: str, sends: list[Message], receives: list[Message], blocking: bool
    ) -> Work | None: ...  # `name` is the method called. Messages to oneself are among them.

    @abstractmethod
    def _split(self, color: int | None, members: list[int]) -> Communicator | None: ...

    @abstractmethod
    def _abort(self, reason: str) -> None: ...  # tells the other ranks, without waiting for them

    @abstractmethod
    def _close(self) -> None: ...

    # What a subclass may use.

    def _fail(self, reason: str) -> None:
        """Let every later call fail for `reason`, here and on the other ranks; the first stays."""
        if self._failure is None:
            self._failure = reason
            self._abort(reason)

    def _error(self, name: str, happened: str) -> CommunicatorError:
        """The error of this rank in the method `name`."""
        return CommunicatorError(f"rank {self.rank} of {self.size}, {name}: {happened}")

    def _check_open(self, name: str) -> None:
        """Raise if no call can succeed; `name` is the method's."""
        if self._closed:
            raise self._error(name, "the communicator is closed")
        if self._failure is not None:
            raise self._error(name, self._failure)

    def _start_exchange(
        self, name: str, sends: Messages, receives: Messages, blocking: bool
    ) -> Work | None:
        self._check_open(name)
        sent, received = self._messages(name, sends), self._messages(name, receives)
        checks.to_itself(name, self.rank, sent, received)
        self._count(*(sum(x.nbytes for p, x in m if p != self.rank) for m in (sent, received)))
        return self._exchange(name, sent, received, blocking)

    def _messages(self, name: str, messages: Messages) -> list[Message]:
        return [
            (self._peer(name, "peer", peer), checks.tensor(name, "x", x, self.device))
            for peer, x in messages
        ]

    def _tensors(self, name: str, **arrays: Array) -> list[Tensor]:
        self._check_open(name)
        return [checks.tensor(name, label, x, self.device) for label, x in arrays.items()]

    def _peer(self, name: str, label: str, peer: int) -> int:
        if not 0 <= peer < self.size:
            raise self._error(name, f"{label}: found {peer}, expected 0 to {self.size - 1}")
        return int(peer)

    def _count(self, sent: int, received: int) -> None:
        self.bytes_sent += sent
        self.bytes_received += received
