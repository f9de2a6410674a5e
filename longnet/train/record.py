"""What a run writes and shows while it trains: metrics, progress, the loss curve."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from longnet.errors import LongNetError
from longnet.evaluate.perplexity import Evaluation
from longnet.train.metrics import MetricsFile, read_metrics, validation_text
from longnet.train.plot import plot_loss
from longnet.train.progress import Progress

METRICS = "metrics.jsonl"
LOSS_CURVE = "loss.png"


class Silence:
    """The record of a rank that leaves it to another to write and to show."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None: ...

    def show(self, record: Mapping[str, Any]) -> None:
        """Show an update to people."""

    def show_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Tell people how good the model is."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Append an update to the metrics."""

    def sync(self) -> None:
        """Return when all that was written is on the disk."""

    def draw(self) -> None:
        """Draw the loss curve."""


class Record(Silence):
    """``metrics.jsonl`` and ``loss.png`` in a folder, and progress on standard error.

    Parameters
    ----------
    folder : Path
        Made when missing.
    step, steps : int
        Updates made before, and in the whole run.

    Raises
    ------
    LongNetError
        A file or the folder cannot be written, when it is entered or later.
    """

    def __init__(self, folder: Path, step: int, steps: int) -> None:
        self._folder, self._step, self._steps = folder, step, steps

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LongNetError(f"{self._folder}: cannot be made: {error.strerror}") from error
        with ExitStack() as opened:
            self._metrics = opened.enter_context(MetricsFile(self._folder / METRICS, self._step))
            self._progress = opened.enter_context(Progress(self._step, self._steps))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *unused: object) -> None:
        self._opened.close()

    def show(self, record: Mapping[str, Any]) -> None:
        """Show an update to people."""
        self._progress.update(record)

    def show_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Tell people how good the model is."""
        self._progress.note(validation_text(step, evaluation))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append an update to the metrics."""
        self._metrics.write(record)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        self._metrics.sync()

    def draw(self) -> None:
        """Draw the loss curve; that this fails is a warning."""
        try:
            plot_loss(read_metrics(self._folder / METRICS), self._folder / LOSS_CURVE)
        except LongNetError as error:
            # A picture that can be drawn later is no reason to end a run.
            warnings.warn(str(error), stacklevel=2)
