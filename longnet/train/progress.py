"""What a person sees while a model trains: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol, Self

_LINE_SECONDS = 5.0
_BAR = "{n_fmt}/{total_fmt} {percentage:3.0f}%|{bar}| {desc}, {remaining} left"


class _Display(Protocol):
    def show(self, step: int, text: str) -> None: ...
    def line(self, text: str) -> None: ...
    def close(self) -> None: ...


class Progress:
    """Shows steps, loss, tokens a second and the time left, on standard error.

    Parameters
    ----------
    step, steps : int
        Steps made before, and steps in the whole run.
    """

    def __init__(self, step: int, steps: int) -> None:
        terminal = sys.stderr.isatty()
        self._display: _Display = _Bar(step, steps) if terminal else _Lines(step, steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._display.close()

    def update(self, record: Mapping[str, Any]) -> None:
        """Show the record of a step: its loss in nats a token, the speed, the memory."""
        text = f"loss {record['loss']:.3f}, {record['tokens_per_second']:,.0f} tokens/s"
        if "utilization" in record:
            text += f", {record['utilization']:.1%} of peak"
        if record["peak_memory_bytes"] >= 1e9:
            text += f", {record['peak_memory_bytes'] / 1e9:.1f} GB"
        with suppress(OSError):  # a terminal that went away ends no run
            self._display.show(record["step"], text)

    def note(self, text: str) -> None:
        """Print a line of its own."""
        with suppress(OSError):
            self._display.line(text)


class _Bar:
    def __init__(self, step: int, steps: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=steps, initial=step, bar_format=_BAR, dynamic_ncols=True, file=sys.stderr
        )

    def show(self, step: int, text: str) -> None:
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(step - self._bar.n)

    def line(self, text: str) -> None:
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    def __init__(self, step: int, steps: int) -> None:
        self._first, self._steps = step, steps
        self._start = self._shown = monotonic()

    def show(self, step: int, text: str) -> None:
        now = monotonic()
        if now - self._shown < _LINE_SECONDS and step < self._steps:
            return
        self._shown = now
        left = (now - self._start) / (step - self._first) * (self._steps - step)
        self.line(f"step {step}/{self._steps}, {text}, {_clock(left)} left")

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
