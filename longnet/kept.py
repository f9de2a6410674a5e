"""Results that are stored although what surrounds them is computed again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from longnet._core import Tensor

Results = tuple[Tensor, ...]


class Kept:
    """Results in the order in which they were computed; handed out again once `replaying`."""

    def __init__(self) -> None:
        self._results: deque[Results] = deque()
        self.replaying = False

    def get(self, compute: Callable[[], Results]) -> Results:
        """Return ``compute()``, now or as it was before."""
        if self.replaying:
            return self._results.popleft()
        self._results.append(compute())
        return self._results[-1]


_kept: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextmanager
def keeping(kept: Kept | None) -> Iterator[None]:
    """Let `keep` inside the ``with`` block store its results in `kept`, or store none."""
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def keep(compute: Callable[[], Results]) -> Results:
    """Return ``compute()``, or what it gave before where a checkpoint around it has kept that."""
    kept = _kept.get()
    return compute() if kept is None else kept.get(compute)
