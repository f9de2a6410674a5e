"""The thread that sees to it that no collective of a GPU takes for ever."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

INTERVAL = 0.02  # seconds between two looks while something is under way


class Watched(Protocol):
    """A collective under way: its method, whether it is done, and when it must be."""

    name: str
    deadline: float  # of time.monotonic()

    @property
    def done(self) -> bool: ...


class Watchdog(threading.Thread):
    """Looks at collectives until they are done, and calls for help when one cannot be.

    It keeps each of them until then, so that memory that a GPU still works on is not given back.

    Parameters
    ----------
    trouble : callable
        What keeps the ranks from going on, or None; looked at while something is under way.
    fail : callable
        Called with the cause when there is trouble, or a collective is not done by its deadline.
        The watchdog then ends.
    """

    def __init__(self, trouble: Callable[[], str | None], fail: Callable[[str], None]) -> None:
        super().__init__(name="longnet watchdog", daemon=True)
        self._trouble = trouble
        self._fail = fail
        self._under_way: deque[Watched] = deque()  # in the order of the stream
        self._changed = threading.Condition()
        self._ended = False

    def watch(self, work: Watched) -> None:
        """Look after a collective that was queued."""
        with self._changed:
            self._under_way.append(work)
            self._changed.notify_all()

    def drain(self) -> None:
        """Return when nothing is under way, or the watchdog has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not self._under_way)

    def end(self) -> None:
        """Look at nothing more."""
        with self._changed:
            self._ended = True
            self._under_way.clear()
            self._changed.notify_all()

    def run(self) -> None:
        """Look every `INTERVAL` while something is under way."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._under_way)
                if self._ended:
                    return
            cause = self._look()
            if cause is not None:
                self._fail(cause)
                self.end()
                return
            time.sleep(INTERVAL)

    def _look(self) -> str | None:
        with self._changed:
            while self._under_way and self._under_way[0].done:
                self._under_way.popleft()
            oldest = self._under_way[0] if self._under_way else None
            self._changed.notify_all()
        if oldest is None:
            return None
        cause = self._trouble()
        if cause is None and time.monotonic() > oldest.deadline:
            cause = "not all ranks were there by the deadline"
        return None if cause is None else f"{cause}, during {oldest.name}"
