"""Ranks that are GPUs, one a process, joined by NCCL.

Collectives run on a stream of the communicator's own, after what the current stream has so far;
the current stream goes on after them when their `Work` is waited for. The host waits for nothing:
a thread looks after what is under way, and when a rank died, gave up or did not come by the
deadline it ends the work of this rank's GPU and lets every later call fail. What streams compute
after that from tensors under way is worthless; any call of the communicator, such as the
`barrier` before results are kept, tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from longnet import _core
from longnet._core import Event, Tensor
from longnet.communicator.nccl_library import load_library
from longnet.communicator.protocol import Communicator, Message, Work
from longnet.communicator.rendezvous import Rendezvous
from longnet.communicator.watchdog import Watchdog
from longnet.errors import CommunicatorError, ConfigError, DeviceError


class NcclWork(Work):
    """A collective on the communicator's stream."""

    def __init__(
        self, owner: NcclCommunicator, name: str, event: Event, tensors: tuple[Tensor, ...]
    ) -> None:
        self.name = name
        self.deadline = time.monotonic() + owner.timeout
        self._owner = owner
        self._event = event
        self._tensors = tensors  # empty once waited for

    @property
    def done(self) -> bool:
        """Whether the GPU is done with it, or has faulted, which ends all work."""
        try:
            return self._event.done
        except DeviceError:
            return True

    def wait(self) -> None:
        """Let the current stream go on after the collective, without waiting on the host."""
        if self._tensors:
            self._owner._join(self.name, self._event, self._tensors)
            self._tensors = ()


class NcclCommunicator(Communicator):
    """GPUs joined by NCCL.

    Sums of float16 and bfloat16 are NCCL's own, which rounds on the way from rank to rank.

    Parameters
    ----------
    rendezvous : Rendezvous
        Of the same ranks. The communicator takes it over.
    device : str
        This rank's own GPU, 'cuda:N'.

    Raises
    ------
    DeviceError
        On the rank that has no NCCL, or no such GPU; names what to install.
    CommunicatorError
        On the other ranks then; or NCCL cannot join the ranks, or not by the deadline.
    ConfigError
        The ranks have different versions of NCCL.
    """

    def __init__(self, rendezvous: Rendezvous, device: str) -> None:
        device = device if ":" in device else f"{device}:0"
        super().__init__(rendezvous.rank, rendezvous.size, rendezvous.timeout, device)
        self._rendezvous = rendezvous
        self._children: list[NcclCommunicator] = []
        self._told = False  # whether a caller has been given the failure
        try:
            self._connect(self._agree_on_id())
        except BaseException:
            rendezvous.close()
            raise
        self._watchdog = Watchdog(self._trouble, self._fail)
        self._watchdog.start()

    def barrier(self) -> None:
        """Return once every rank has called it; the host waits, the device does not."""
        self._check("barrier")
        self._gather(None, "barrier")

    def gather_objects(self, value: object) -> list[object]:
        """Return every rank's `value`, in the order of ranks: a small one that pickle takes."""
        self._check("gather_objects")
        return self._gather(value, "gather_objects")

    def _gather(self, value: object, name: str) -> list[object]:
        try:
            return self._rendezvous.gather(value, name)
        except CommunicatorError as error:
            self._told = True
            self._fail(self._rendezvous.failure or str(error))
            raise

    def _agree_on_id(self) -> bytes:
        problem, version, unique_id = "", "", b""
        try:
            version = load_library()
            unique_id = _core.NcclCommunicator.unique_id() if self.rank == 0 else b""
        except DeviceError as error:
            problem = str(error)
        answers = self._rendezvous.gather((problem, version, unique_id), "connect")
        if problem:
            raise DeviceError(problem)
        for rank, (theirs, _, _) in enumerate(answers):
            if theirs:
                raise self._error("connect", f"rank {rank}: {theirs}")
        for rank, (_, found, _) in enumerate(answers):
            if found != answers[0][1]:
                raise ConfigError(
                    f"NCCL's version: found {found} on rank {rank}, expected {answers[0][1]} as "
                    "on rank 0"
                )
        return answers[0][2]

    def _connect(self, unique_id: bytes) -> None:
        try:
            self._native = _core.NcclCommunicator(unique_id, self.rank, self.size, self.device)
        except DeviceError as error:
            self._rendezvous.abort(f"rank {self.rank}: {error}")
            raise
        self._settle("connect")

    # ---- collectives ----

    def _all_gather(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None:
        return self._run("all_gather", lambda: self._native.all_gather(out, x), (out, x), blocking)

    def _reduce_scatter(self, out: Tensor, x: Tensor, blocking: bool) -> Work | None:
        return self._run(
            "reduce_scatter", lambda: self._native.reduce_scatter(out, x), (out, x), blocking
        )

    def _all_reduce(self, x: Tensor, op: str, blocking: bool) -> Work | None:
        if op == "max" and "float" in x.dtype:
            return self._largest(x, blocking)
        return self._run(
            "all_reduce", lambda: self._native.all_reduce(x, op == "max"), (x,), blocking
        )

    def _largest(self, x: Tensor, blocking: bool) -> Work | None:
        """NaN is the largest of all, which NCCL's own drops."""
        parts = Tensor.empty((self.size, *x.shape), x.dtype, self.device)
        return self._run(
            "all_reduce",
            lambda: self._native.all_gather(parts, x),
            (x, parts),
            blocking,
            then=lambda: self._native.largest(x, parts),
        )

    def _broadcast(self, x: Tensor, root: int, blocking: bool) -> Work | None:
        return self._run("broadcast", lambda: self._native.broadcast(x, root), (x,), blocking)

    def _exchange(
        self, name: str, sends: list[Message], receives: list[Message], blocking: bool
    ) -> Work | None:
        tensors = tuple(x for _, x in [*sends, *receives])
        return self._run(
            name, lambda: self._native.exchange(tuple(sends), tuple(receives)), tensors, blocking
        )

    def _run(
        self,
        name: str,
        begin: Callable[[], None],
        tensors: tuple[Tensor, ...],
        blocking: bool,
        then: Callable[[], None] | None = None,
    ) -> Work | None:
        self._check(name)
        try:
            begin()
            self._settle(name)
            if then is not None:
                then()
            work = NcclWork(self, name, self._native.record(), tensors)
        except DeviceError as error:
            self._give_up(name, str(error))
        self._watchdog.watch(work)
        if not blocking:
            return work
        work.wait()
        return None

    def _settle(self, name: str, alone: bool = False) -> None:
        """Wait until what was begun is done: for a collective, queued on the stream.

        The other ranks may end when `alone`.
        """
        deadline = time.monotonic() + self.timeout
        try:
            while not self._native.poll(0.02):
                cause = None if alone else self._rendezvous.failure
                if cause is None and time.monotonic() > deadline:
                    cause = f"not all ranks were there within {self.timeout:g} s"
                if cause is not None:
                    self._give_up(name, cause)
        except DeviceError as error:
            self._give_up(name, str(error))

    def _join(self, name: str, event: Event, tensors: tuple[Tensor, ...]) -> None:
        self._check(name)
        self._native.join(event, tensors)

    # ---- failures, and the end ----

    def _check(self, name: str) -> None:
        """Raise if no call can succeed."""
        self._check_open(name)
        cause = self._rendezvous.failure
        if cause is not None:
            self._give_up(name, cause)

    def _give_up(self, name: str, cause: str) -> NoReturn:
        self._fail(f"{cause}, during {name}")
        raise self._error(name, self._failure or cause)

    def _trouble(self) -> str | None:
        """What the watchdog asks for."""
        cause = self._rendezvous.failure
        if cause is None:
            try:
                self._native.poll(0)
            except DeviceError as error:
                cause = str(error)
        return cause

    def _abort(self, reason: str) -> None:
        self._rendezvous.abort(reason)
        self._native.stop()

    def _split(self, color: int | None, members: list[int]) -> Communicator | None:
        group = self._rendezvous.group([] if color is None else members)
        if group is None:
            return None
        child = NcclCommunicator(group, self.device)
        self._children.append(child)
        return child

    def _error(self, name: str, happened: str) -> CommunicatorError:
        self._told = True
        return super()._error(name, happened)

    def abort(self, reason: str) -> None:
        """Make every call fail on all ranks, those that wait now too; the message has `reason`."""
        self._told = True
        super().abort(reason)

    def _close(self) -> None:
        for child in self._children:
            child.close()
        try:
            if self._failure is None:
                self._watchdog.drain()
            if self._failure is None:
                self._gather(None, "close")
                self._native.finalize()
                self._settle("close", alone=True)
                self._native.close()
        finally:
            self._native.stop()
            self._watchdog.end()
            self._rendezvous.close()
        if self._failure is not None and not self._told:
            raise self._error("close", self._failure)
