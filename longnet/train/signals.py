"""Ending a run between two steps when the user or the system asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self


class StopSignals:
    """While entered, SIGTERM and the first Ctrl-C only leave a note; a Ctrl-C after that raises.

    Entered outside the main thread, where Python allows no handlers, it notes nothing.

    Attributes
    ----------
    received : signal.Signals or None
        The first signal that came.
    """

    received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)
