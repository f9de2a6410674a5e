"""The centre of a rendezvous: one thread of rank 0 through which all ranks talk.

Messages are a JSON object and bytes, each after its length. The hub reads only the objects; values
of ranks pass through it as bytes. It gathers the values of a call until all of the call's ranks
have sent theirs, and tells everybody when a connection ends without a goodbye.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import struct
import threading
from typing import Any

HEADER = struct.Struct("!IQ")  # the lengths of the object and of the bytes
MAX_OBJECT = 1 << 20  # bytes: what is longer does not come from a rank

Address = tuple[str, int]


def send(connection: socket.socket, message: dict[str, Any], body: bytes = b"") -> None:
    """Send one message. The caller sees to it that no other thread sends at the same time."""
    text = json.dumps(message).encode()
    connection.sendall(HEADER.pack(len(text), len(body)) + text + body)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Wait for one message; EOFError if the connection has ended or does not speak this."""
    text_length, body_length = HEADER.unpack(_exactly(connection, HEADER.size))
    if text_length > MAX_OBJECT:
        raise EOFError
    try:
        message = json.loads(_exactly(connection, text_length))
    except ValueError:
        raise EOFError from None
    return message, _exactly(connection, body_length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(count - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


class _Call:
    """The values of one call of `gather` that have come."""

    def __init__(self, name: str, members: list[int]) -> None:
        self.name = name
        self.members = members
        self.values: dict[int, bytes] = {}

    def absent(self) -> list[int]:
        return [rank for rank in self.members if rank not in self.values]


class Hub(threading.Thread):
    """Serves the ranks until each has said goodbye or lost its connection.

    Parameters
    ----------
    size : int
        How many ranks there are.
    address : (str, int)
        Where to listen; port 0 takes any.
    token : str
        What a connection must begin with: others, such as port scanners or another job's ranks,
        are turned away.

    Attributes
    ----------
    address : (str, int)
        Where it listens.
    answered : threading.Event
        Rank 0 has left, and whatever was complete before has been sent: its process may end.

    Raises
    ------
    OSError
        The address cannot be listened on.
    """

    def __init__(self, size: int, address: Address, token: str) -> None:
        super().__init__(name="longnet rendezvous", daemon=True)
        self._size = size
        self._token = token
        self._listener = socket.create_server(address, backlog=size)
        self.address: Address = self._listener.getsockname()[:2]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._connections: dict[int, socket.socket] = {}
        self._gone: set[int] = set()
        self._calls: dict[str, _Call] = {}
        self._notices: list[dict[str, Any]] = []  # for ranks that come later
        self.answered = threading.Event()

    def run(self) -> None:
        """Serve."""
        while len(self._gone) < self._size:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._welcome()
                else:
                    self._serve(key.data, self._connections[key.data])
            if 0 in self._gone:
                self.answered.set()
        self._selector.close()
        self._listener.close()

    def _welcome(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(5)  # a stranger who says nothing must not hold up the ranks
        try:
            hello, _ = receive(connection)
            rank = hello["rank"]
            if hello["token"] != self._token or not 0 <= rank < self._size:
                raise EOFError
            if hello["size"] != self._size or rank in self._connections:
                refusal = (
                    f"found a rank {rank} of {hello['size']}, expected each of "
                    f"{self._size} ranks once"
                )
                send(connection, {"kind": "refused", "reason": refusal})
                raise EOFError
            send(connection, {"kind": "welcome"})
            for notice in self._notices:
                send(connection, notice)
        except (OSError, EOFError, KeyError, TypeError):
            connection.close()
            return
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[rank] = connection
        self._selector.register(connection, selectors.EVENT_READ, rank)

    def _serve(self, rank: int, connection: socket.socket) -> None:
        try:
            message, body = receive(connection)
        except (OSError, EOFError):
            self._tell_all({"kind": "lost", "rank": rank})  # before the calls that fail by it
            self._leave(rank)
            return
        match message["kind"]:
            case "values":
                self._gather(rank, message, body)
            case "absent":
                call = self._calls.get(message["call"])
                self._tell(rank, {**message, "ranks": call.absent() if call else []})
            case "abort":
                self._tell_all(message)
            case "bye":
                self._leave(rank)
                self._tell_all({"kind": "left", "rank": rank})

    def _gather(self, rank: int, message: dict[str, Any], body: bytes) -> None:
        call = self._calls.setdefault(message["call"], _Call(message["call"], message["members"]))
        call.values[rank] = body
        self._settle(call)

    def _settle(self, call: _Call) -> None:
        """Answer a call that is complete, or that cannot be completed any more."""
        absent = call.absent()
        left = [rank for rank in absent if rank in self._gone]
        if absent and not left:
            return
        del self._calls[call.name]
        bodies = [] if left else [call.values[rank] for rank in call.members]
        sizes = [len(body) for body in bodies]
        reply = {"kind": "values", "call": call.name, "sizes": sizes, "left": left}
        for rank in call.values:
            self._tell(rank, reply, b"".join(bodies))

    def _leave(self, rank: int) -> None:
        self._gone.add(rank)
        self._selector.unregister(self._connections[rank])
        self._connections[rank].close()
        for call in list(self._calls.values()):
            self._settle(call)

    def _tell(self, rank: int, message: dict[str, Any], body: bytes = b"") -> None:
        if rank in self._connections and rank not in self._gone:
            with contextlib.suppress(OSError):  # its end is seen where it is read
                send(self._connections[rank], message, body)

    def _tell_all(self, notice: dict[str, Any]) -> None:
        self._notices.append(notice)
        for rank in self._connections:
            self._tell(rank, notice)
