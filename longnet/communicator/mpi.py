"""Ranks that are processes of MPI, through mpi4py.

Every call of MPI here returns at once and is polled against a deadline, as MPI itself waits for
ever. That a rank died, left or gave up comes through the sockets of a rendezvous.

By itself mpirun kills all ranks when one dies, often before they can say where they were. With
Open MPI's ``mpirun --enable-recovery`` (Slurm: ``srun --kill-on-bad-exit=0``) they live on, and
each raises an error that names the dead rank and its own collective. On fewer processors than
ranks, ``--oversubscribe --mca mpi_yield_when_idle 1`` is much faster than spinning.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections import deque
from typing import Any

import numpy as np

from longnet.communicator.host import CHANNELS, Bytes, HostCommunicator, Transfer
from longnet.communicator.hub import Hub
from longnet.communicator.mpi_library import MpiLibrary
from longnet.communicator.protocol import Communicator
from longnet.communicator.rendezvous import Rendezvous
from longnet.errors import CommunicatorError

ANNOUNCEMENT = 256  # bytes that say what a message is
CHUNK = 1 << 30  # bytes in one MPI message: counts of MPI before 4 are 32-bit
SPIN = 200  # polls before a rank that waits begins to sleep
NAP = 1e-4  # seconds
GRACE = 2.0  # seconds in which messages of a rank that has closed may still come


class _Requests(Transfer):
    """A message with its requests to MPI; the announcement's come first."""

    requests: list[Any]
    announcement: Bytes


def world(size: int, timeout: float) -> MpiCommunicator:
    """Return the communicator of all `size` ranks that mpirun or srun has started.

    Raises
    ------
    CommunicatorError
        mpi4py or its MPI library is missing, the launcher is not that MPI's, so that each rank
        finds itself alone, or not all ranks have come by the deadline.
    """
    library = MpiLibrary.load()
    joined = rendezvous(size, timeout)
    return MpiCommunicator(library, list(range(size)), joined, 0, timeout)


def rendezvous(size: int, timeout: float) -> Rendezvous:
    """Return the rendezvous of all ranks, of which MPI tells where it is. Raises as `world`."""
    comm = MpiLibrary.load().world
    rank, found = comm.Get_rank(), comm.Get_size()
    if found != size:
        raise CommunicatorError(
            f"rank {rank}: found {found} rank(s) in MPI, expected the launcher's {size}: start "
            "them with the mpirun of the MPI library that mpi4py loads, or srun --mpi=pmix"
        )
    deadline = time.monotonic() + timeout

    def complete(request: Any) -> None:
        idle = 0
        while not request.Test():
            if time.monotonic() > deadline:
                happened = f"waited {timeout:g} s for the other ranks"
                raise CommunicatorError(f"rank {rank} of {size}, rendezvous: {happened}")
            _nap(idle, deadline)
            idle += 1

    own = np.zeros(ANNOUNCEMENT, np.uint8)
    _write(own, socket.gethostname())
    hosts = np.empty((size, ANNOUNCEMENT), np.uint8)
    complete(comm.Iallgather(own, hosts))
    local = bool((hosts == hosts[0]).all())
    hub = None
    letter = np.zeros(16 * ANNOUNCEMENT, np.uint8)
    if rank == 0:
        token = secrets.token_hex(16)
        hub = Hub(size, ("127.0.0.1" if local else "", 0), token)
        names = ["127.0.0.1"] if local else _host_names()
        _write(letter, json.dumps([token, [(name, hub.address[1]) for name in names]]))
    complete(comm.Ibcast(letter, root=0))
    token, addresses = json.loads(_read(letter))
    return Rendezvous.connect(rank, size, [tuple(a) for a in addresses], timeout, token, hub)


class MpiCommunicator(HostCommunicator):
    """Some ranks of MPI's world. `members` are their numbers there, `identity` sets tags apart."""

    def __init__(
        self,
        library: MpiLibrary,
        members: list[int],
        rendezvous: Rendezvous,
        identity: int,
        timeout: float,
    ) -> None:
        super().__init__(rendezvous.rank, rendezvous.size, timeout)
        self._library = library
        self._comm = library.world
        self._members = members
        self._rendezvous = rendezvous
        self._identity = identity
        self._outgoing: list[_Requests] = []
        self._arriving: list[_Requests] = []
        self._left: dict[int, float] = {}  # when it was seen that a rank has closed

    def _send(self, name: str, peer: int, what: str, data: Bytes, channel: int = 0) -> Transfer:
        transfer = self._transfer(name, peer, what, data)
        _write(transfer.announcement, what)
        tag = self._tag(channel)
        transfer.requests = [
            self._comm.Isend(part, self._members[peer], part_tag)
            for part, part_tag in [(transfer.announcement, tag), *_chunks(data, tag + 1)]
        ]
        self._outgoing.append(transfer)
        return transfer

    def _receive(self, name: str, peer: int, what: str, data: Bytes, channel: int = 0) -> Transfer:
        transfer = self._transfer(name, peer, what, data)
        source, tag = self._members[peer], self._tag(channel)
        transfer.requests = [self._comm.Irecv(transfer.announcement, source, tag)]
        self._expected[peer, channel].append(transfer)
        return transfer

    def _carry(self) -> None:
        try:
            for (peer, channel), expected in list(self._expected.items()):
                self._open(expected, peer, self._tag(channel) + 1)
                if not expected:
                    del self._expected[peer, channel]
            for each in (self._outgoing, self._arriving):
                for transfer in each:
                    transfer.done = self._library.test(transfer.requests)
                each[:] = [transfer for transfer in each if not transfer.done]
        except self._library.Exception as error:
            raise self._broken(error) from None

    def _open(self, expected: deque[Any], peer: int, tag: int) -> None:
        """Receive the bodies of the messages that are announced."""
        while expected and self._library.test(expected[0].requests):
            transfer = expected.popleft()
            self._check_announced(transfer, _read(transfer.announcement))
            transfer.requests = [
                self._comm.Irecv(part, self._members[peer], tag)
                for part, tag in _chunks(transfer.data, tag)
            ]
            self._arriving.append(transfer)

    def _broken(self, error: Exception) -> CommunicatorError:
        """What to raise of an error of MPI: most often a rank died, and the news is on its way."""
        end = time.monotonic() + GRACE
        while self._rendezvous.failure is None and time.monotonic() < end:
            time.sleep(NAP)
        name = self._works[0].name
        return self._give_up(name, self._rendezvous.failure or f"MPI: {error}")

    def _trouble(self, peers: list[int]) -> str | None:
        failure = self._rendezvous.failure
        if failure is not None:
            self._library.failed = True
            return failure
        now = time.monotonic()
        for peer in self._rendezvous.left:
            if now - self._left.setdefault(peer, now) > GRACE and peer in peers:
                return f"rank {peer} has closed its communicator"
        return None

    def _pause(self, idle: int, left: float) -> None:
        _nap(idle, time.monotonic() + left)

    def _split(self, color: int | None, members: list[int]) -> Communicator | None:
        identity = max(self.gather_objects(self._library.next_identity))
        self._library.next_identity = identity + 1
        rendezvous = self._rendezvous.group(members if color is not None else [])
        if rendezvous is None:
            return None
        if (identity + 1) * 2 * CHANNELS > self._library.largest_tag:
            raise self._error("split", f"found {identity} splits before: MPI's tags are used up")
        ranks = [self._members[member] for member in members]
        child = MpiCommunicator(self._library, ranks, rendezvous, identity, self.timeout)
        return self._adopt(child)

    def _abort(self, reason: str) -> None:
        self._library.failed = True
        self._library.abandoned += self._works  # MPI may still write to their memory
        self._rendezvous.abort(reason)

    def _close(self) -> None:
        super()._close()
        self._library.abandoned += self._works
        self._rendezvous.close()

    def _transfer(self, name: str, peer: int, what: str, data: Bytes) -> _Requests:
        transfer = _Requests(name, peer, what, data)
        transfer.announcement = np.zeros(ANNOUNCEMENT, np.uint8)
        return transfer

    def _tag(self, channel: int) -> int:
        """The tag of announcements; that of bodies is the next one."""
        return 2 * (self._identity * CHANNELS + channel)


def _host_names() -> list[str]:
    """The names and addresses under which other hosts may reach this one."""
    name = socket.gethostname()
    names = [name, socket.getfqdn()]
    with contextlib.suppress(OSError):
        names += [str(info[4][0]) for info in socket.getaddrinfo(name, None, socket.AF_INET)]
    return list(dict.fromkeys(names))


def _chunks(data: Bytes, tag: int) -> list[tuple[Bytes, int]]:
    return [(data[start : start + CHUNK], tag) for start in range(0, data.size, CHUNK)]


def _write(data: Bytes, text: str) -> None:
    encoded = text.encode()[: data.size]
    data[: len(encoded)] = np.frombuffer(encoded, np.uint8)


def _read(data: Bytes) -> str:
    return data.tobytes().rstrip(b"\0").decode()


def _nap(idle: int, deadline: float) -> None:
    """Give the processor to others, who may be the ranks that are waited for."""
    if idle < SPIN:
        os.sched_yield()
    else:
        time.sleep(max(0.0, min(NAP, deadline - time.monotonic())))
