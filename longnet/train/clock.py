"""Where the time of a run goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Clock:
    """Adds up the seconds spent in each named part of a run.

    Attributes
    ----------
    seconds : dict of float
        By part, in the order in which the parts first ran.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time inside the ``with`` block towards `part`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + perf_counter() - start

    def summary(self) -> str:
        """The sum and the parts, in one line."""
        parts = [f"{part} {value:.1f}" for part, value in self.seconds.items()]
        return f"{sum(self.seconds.values()):.1f} s: {', '.join(parts)}"
