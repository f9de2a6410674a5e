"""Whether ops are recorded on the tape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_recording: ContextVar[bool] = ContextVar("recording", default=True)


def is_recording() -> bool:
    """Whether ops are recorded."""
    return _recording.get()


def no_grad() -> Any:
    """Return a context manager inside which nothing is recorded."""
    return _set_recording(False)


def recording() -> Any:
    """Return a context manager inside which ops are recorded, also in one of `no_grad`."""
    return _set_recording(True)


@contextmanager
def _set_recording(recording: bool) -> Iterator[None]:
    token = _recording.set(recording)
    try:
        yield
    finally:
        _recording.reset(token)
