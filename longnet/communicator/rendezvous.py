"""Where the ranks of several processes find each other, agree on small values, and see who dies.

Every rank holds one TCP connection to a hub on rank 0. Nothing large goes this way: it carries
NCCL's unique id, checks of agreement, barriers, and the news that a rank aborted or is gone.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from typing import Any

from longnet.communicator.checks import ranks_named
from longnet.communicator.hub import Address, Hub
from longnet.communicator.link import Link
from longnet.errors import CommunicatorError


class Rendezvous:
    """A group of ranks that share a hub.

    Use `connect` for all ranks of a job, and `group` for some of them.

    Attributes
    ----------
    rank, size : int
        This rank's number in the group, and how many ranks the group has.
    timeout : float
        Seconds that a call waits.
    """

    def __init__(self, link: Link, members: Sequence[int], name: str, timeout: float) -> None:
        self._link = link
        self._members = list(members)
        self._name = name
        self._calls = 0
        self._groups = 0
        self.rank = self._members.index(link.rank)
        self.size = len(self._members)
        self.timeout = timeout

    @classmethod
    def connect(
        cls,
        rank: int,
        size: int,
        addresses: Sequence[Address],
        timeout: float,
        token: str = "",
        hub: Hub | None = None,
    ) -> Rendezvous:
        """Join all ranks of a job, in any order; rank 0 starts the hub.

        Parameters
        ----------
        rank, size : int
        addresses : sequence of (host, port)
            Where rank 0 can be reached: the first that answers is taken. Rank 0 itself listens on
            the port of the first, on all interfaces, or on the loopback interface alone if all
            addresses are on it.
        timeout : float
            Seconds for this call and for every later one.
        token : str
            The job's name, the same on every rank: others are turned away. The network is trusted,
            as it is by NCCL and MPI.
        hub : Hub, optional
            On rank 0, one that listens already.

        Raises
        ------
        CommunicatorError
            Rank 0 cannot listen there, cannot be reached, or another job's rank 0 answers.
        """
        deadline = time.monotonic() + timeout
        if rank == 0:
            if hub is None:
                hub = _listen(size, addresses, token)
            hub.start()
            addresses = [("127.0.0.1", hub.address[1])]
        try:
            link = Link(rank, size, addresses, deadline, token, hub)
        except ConnectionError as error:
            raise CommunicatorError(f"rank {rank} of {size}, rendezvous: {error}") from None
        return cls(link, range(size), "", timeout)

    @property
    def failure(self) -> str | None:
        """Why this group cannot go on: who of it died or aborted; None while all is well.

        Known as soon as the news has come, without a call: look at it while waiting for anything.
        A rank that has closed is no failure, because what it sent may still be under way.
        """
        with self._link.changed:
            return self._link.failure(self._members)

    @property
    def left(self) -> list[int]:
        """The ranks of the group that have closed."""
        with self._link.changed:
            return [place for place, r in enumerate(self._members) if r in self._link.left]

    def gather(self, value: object, what: str) -> list[Any]:
        """Return every rank's `value` (one that pickle takes), in the order of the group's ranks.

        Parameters
        ----------
        value : object
        what : str
            The method that needs it, as error messages name it.

        Raises
        ------
        CommunicatorError
            A rank of the group died, left, aborted, or did not come by the deadline: names this
            rank, `what`, and that rank.
        """
        call = f"{self._name}#{self._calls}"
        self._calls += 1
        deadline = time.monotonic() + self.timeout
        try:
            message, body = self._link.ask(
                "values", call, self._members, pickle.dumps(value), deadline
            )
        except TimeoutError:
            happened = f"waited {self.timeout:g} s for {self._absent(call)}"
            raise self._error(what, happened) from None
        except ConnectionError as error:
            raise self._error(what, str(error)) from None
        if message["left"]:
            left = ranks_named([self._members.index(rank) for rank in message["left"]])
            raise self._error(what, self.failure or f"{left} closed without calling it")
        values, start = [], 0
        for size in message["sizes"]:
            values.append(pickle.loads(body[start : start + size]))
            start += size
        return values

    def broadcast(self, value: object, what: str, root: int = 0) -> Any:
        """Return the `value` of rank `root`; the others' is not looked at. Errors as `gather`."""
        return self.gather(value if self.rank == root else None, what)[root]

    def barrier(self, what: str = "barrier") -> None:
        """Return once every rank of the group has called it. Errors as `gather`."""
        self.gather(None, what)

    def group(self, members: Sequence[int]) -> Rendezvous | None:
        """Return a group of some of this group's ranks in a new order; None for other ranks.

        Every rank calls it, the members with the same `members`; disjoint groups can be made by
        one call on each rank. It talks to nobody.
        """
        name = f"{self._name}/{self._groups}.{min(members, default=-1)}"
        self._groups += 1
        if self.rank not in members:
            return None
        return Rendezvous(self._link, [self._members[r] for r in members], name, self.timeout)

    def abort(self, reason: str) -> None:
        """Tell the ranks of the group, and let every later call fail. Waits for nobody."""
        self._link.tell({"kind": "abort", "members": self._members, "reason": reason})

    def close(self) -> None:
        """Say goodbye, waiting for no rank. Of a group it does nothing: it ends with the whole."""
        if not self._name:
            self._link.close()

    def _absent(self, call: str) -> str:
        try:
            message, _ = self._link.ask("absent", call, self._members, b"", time.monotonic() + 1)
        except (TimeoutError, ConnectionError):
            return "rank 0, which does not answer"
        absent = [self._members.index(rank) for rank in message["ranks"]]
        return ranks_named(absent)

    def _error(self, what: str, happened: str) -> CommunicatorError:
        return CommunicatorError(f"rank {self.rank} of {self.size}, {what}: {happened}")


def _listen(size: int, addresses: Sequence[Address], token: str) -> Hub:
    local = all(host in ("localhost", "127.0.0.1") for host, _ in addresses)
    where = ("127.0.0.1" if local else "", addresses[0][1])
    try:
        return Hub(size, where, token)
    except OSError as error:
        raise CommunicatorError(
            f"rank 0 of {size}, rendezvous: cannot listen on port {where[1]}: {error.strerror}"
        ) from None
