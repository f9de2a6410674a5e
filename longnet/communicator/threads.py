"""Ranks that are threads of one process: for tests, and to read how the others work."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence

from longnet.communicator.host import Bytes, HostCommunicator, Transfer
from longnet.communicator.protocol import Communicator
from longnet.errors import ConfigError


class Board:
    """What the threads share: messages that lie ready, and who has left or failed."""

    def __init__(self, changed: threading.Condition, parent: Board | None = None) -> None:
        self.changed = changed
        self.messages: defaultdict[tuple[int, int, int], deque[Transfer]] = defaultdict(deque)
        self.closed: set[int] = set()
        self.children: dict[tuple[int, tuple[int, ...]], Board] = {}
        self._failure: str | None = None
        self._parent = parent

    @property
    def failure(self) -> str | None:
        """Why these ranks cannot go on, or all those they were split from."""
        return self._failure or (self._parent.failure if self._parent else None)

    @failure.setter
    def failure(self, reason: str) -> None:
        self._failure = self._failure or reason
        if self._parent:
            self._parent.failure = reason


def communicators(size: int, timeout: float) -> Sequence[Communicator]:
    """Return one communicator for each of `size` threads."""
    if size < 1:
        raise ConfigError(f"Communicator.threads: size: found {size}, expected at least 1")
    board = Board(threading.Condition())
    return [ThreadCommunicator(board, rank, size, timeout) for rank in range(size)]


class ThreadCommunicator(HostCommunicator):
    """One thread's rank. Messages are copied from the sender's memory by the receiver."""

    def __init__(self, board: Board, rank: int, size: int, timeout: float) -> None:
        super().__init__(rank, size, timeout)
        self._board = board
        self._splits = 0

    def _send(self, name: str, peer: int, what: str, data: Bytes, channel: int = 0) -> Transfer:
        transfer = Transfer(name, peer, what, data)
        self._board.messages[self.rank, peer, channel].append(transfer)
        self._board.changed.notify_all()
        return transfer

    def _carry(self) -> None:
        for (peer, channel), expected in list(self._expected.items()):
            messages = self._board.messages[peer, self.rank, channel]
            while expected and messages:
                message, transfer = messages.popleft(), expected.popleft()
                self._check_announced(transfer, message.what)
                transfer.data[...] = message.data
                transfer.done = message.done = True
                self._board.changed.notify_all()
            if not expected:
                del self._expected[peer, channel]

    def _trouble(self, peers: list[int]) -> str | None:
        left = self._board.closed.intersection(peers)
        closed = f"rank {min(left)} has closed its communicator" if left else None
        return self._board.failure or closed

    def _pause(self, idle: int, left: float) -> None:
        self._board.changed.wait(left)

    def _guard(self) -> threading.Condition:
        return self._board.changed

    def _split(self, color: int | None, members: list[int]) -> Communicator | None:
        self._splits += 1
        if color is None:
            return None
        with self._board.changed:
            child = self._board.children.setdefault(
                (self._splits, tuple(members)), Board(self._board.changed, self._board)
            )
        place = members.index(self.rank)
        return self._adopt(ThreadCommunicator(child, place, len(members), self.timeout))

    def _abort(self, reason: str) -> None:
        with self._board.changed:
            self._board.failure = reason
            self._board.changed.notify_all()

    def _close(self) -> None:
        super()._close()
        with self._board.changed:
            self._board.closed.add(self.rank)
            self._board.changed.notify_all()
