"""A rank's connection to the hub of its rendezvous."""

from __future__ import annotations

import atexit
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from longnet.communicator.hub import Address, Hub, receive, send

FAREWELL = 5.0  # seconds that rank 0 waits for its hub to send what other ranks were promised


class Link:
    """Asks the hub, and hears its news in a thread of its own.

    When the interpreter exits it says goodbye, or, after an exception that nobody caught, tells the
    other ranks of it.

    Parameters
    ----------
    rank, size : int
    addresses : sequence of (host, port)
        Where the hub can be: tried in turn until one answers, because it may not listen yet.
    deadline : float
        Of `time.monotonic`.
    token : str
        The hub's.
    hub : Hub, optional
        On rank 0, which serves others with its process: it ends after what it owes them is sent.

    Raises
    ------
    ConnectionError
        No hub of this job has answered, or it refuses this rank.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        addresses: Sequence[Address],
        deadline: float,
        token: str,
        hub: Hub | None = None,
    ) -> None:
        self.rank = rank
        self.changed = threading.Condition()
        self.left: set[int] = set()
        hello = {"rank": rank, "size": size, "token": token}
        self._connection = _connect(addresses, hello, deadline)
        self._sending = threading.Lock()
        self._replies: dict[tuple[str, str], tuple[dict[str, Any], bytes]] = {}
        self._news: list[tuple[set[int], str]] = []  # whom it concerns; no reason: it died
        self._closed = False
        self._ended = False
        self._hub = hub
        threading.Thread(target=self._read, name="longnet rendezvous reader", daemon=True).start()
        atexit.register(self._exit)

    def ask(
        self, kind: str, call: str, members: list[int], body: bytes, deadline: float
    ) -> tuple[dict[str, Any], bytes]:
        """Send a question and wait for its reply; ConnectionError if it cannot come any more."""
        self.tell({"kind": kind, "call": call, "members": members}, body)
        with self.changed:
            while (kind, call) not in self._replies:
                failure = self.failure(members)
                if failure is not None or self._ended:
                    raise ConnectionError(failure or "rank 0 has closed its communicator")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.changed.wait(left)
            return self._replies.pop((kind, call))

    def tell(self, message: dict[str, Any], body: bytes = b"") -> None:
        """Send a message; that the hub is gone is for the reader to see."""
        with self._sending:
            if not self._closed:
                with contextlib.suppress(OSError):
                    send(self._connection, message, body)

    def failure(self, members: Sequence[int]) -> str | None:
        """Why `members` cannot go on: the first news. The caller holds `changed`."""
        if self._closed:
            return "the communicator is closed"
        for ranks, reason in self._news:
            places = [place for place, rank in enumerate(members) if rank in ranks]
            if places:
                return reason or f"rank {places[0]} died: its connection has ended"
        return None

    def close(self) -> None:
        """Say goodbye; a hub of this process first answers. A second call does nothing."""
        atexit.unregister(self._exit)
        if not self._closed:
            self.tell({"kind": "bye"})
            with self._sending, self.changed:
                self._closed = True
                self.changed.notify_all()
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
            if self._hub is not None:
                self._hub.answered.wait(FAREWELL)

    def _exit(self) -> None:
        error = getattr(sys, "last_value", None)
        if error is not None:
            reason = f"rank {self.rank} ended: {type(error).__name__}: {error}"
            self.tell({"kind": "abort", "members": [self.rank], "reason": reason})
        self.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                message, body = receive(self._connection)
                with self.changed:
                    self._hear(message, body)
                    self.changed.notify_all()
        with self.changed:
            if 0 not in self.left:
                self._news.append(({0}, ""))
            self._ended = True
            self.changed.notify_all()
        self._connection.close()

    def _hear(self, message: dict[str, Any], body: bytes) -> None:
        match message["kind"]:
            case "abort":
                self._news.append((set(message["members"]), message["reason"]))
            case "lost":
                self._news.append(({message["rank"]}, ""))
            case "left":
                self.left.add(message["rank"])
            case kind:
                self._replies[kind, message["call"]] = (message, body)


def _connect(addresses: Sequence[Address], hello: dict[str, Any], deadline: float) -> socket.socket:
    start = time.monotonic()
    problem = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        for address in addresses:
            try:
                connection = socket.create_connection(address, timeout=min(left, 5))
            except OSError as error:
                problem = error.strerror or str(error)
                continue
            try:
                send(connection, hello)
                answer, _ = receive(connection)
            except (OSError, EOFError):
                problem = "what answers is not this job's rank 0"
                connection.close()
                continue
            if answer["kind"] == "welcome":
                connection.settimeout(None)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            connection.close()
            raise ConnectionError(answer["reason"])
        time.sleep(0.05)
    place = " or ".join(f"{host}:{port}" for host, port in addresses)
    waited = time.monotonic() - start
    raise ConnectionError(f"waited {waited:.3g} s for rank 0 at {place}: {problem}")
