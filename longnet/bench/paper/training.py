"""Training in which every run has the same text in each update, whatever length it reads it in."""

from __future__ import annotations

import numpy as np

from longnet.checkpoint import Checkpoint
from longnet.config import RunConfig
from longnet.data import Batches, TokenSource
from longnet.errors import DataError
from longnet.train import Trainer
from longnet.train.data import RunData


class SharedBatches(Batches):
    """Shuffled windows, each cut into the rows of a run: its batches depend on no row's length.

    Parameters
    ----------
    source : TokenSource
    batch_size, sequence_length : int
        Rows of a batch, B, and tokens of a row, N.
    window : int
        Tokens of a window, a multiple of N and a divisor of B x N.
    seed : int

    Raises
    ------
    DataError
        The sizes do not fit each other, or are none of `Batches`.
    """

    def __init__(
        self, source: TokenSource, batch_size: int, sequence_length: int, window: int, seed: int
    ) -> None:
        if window % sequence_length or batch_size * sequence_length % window:
            raise DataError(
                f"windows of {window} tokens: found a batch of {batch_size} x {sequence_length}, "
                "expected windows to hold whole rows and a batch whole windows"
            )
        super().__init__(source, batch_size * sequence_length // window, window, seed)
        self._row = sequence_length

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch: inputs and targets, (B, N) int32."""
        inputs, targets = super().__next__()
        return inputs.reshape(-1, self._row), targets.reshape(-1, self._row)


class Run(Trainer):
    """A training whose batches are `SharedBatches`.

    Parameters
    ----------
    config : RunConfig
    window : int
        Tokens that lie together in the text and in a batch (`SharedBatches`).
    resume : Checkpoint, optional
    """

    def __init__(self, config: RunConfig, window: int, resume: Checkpoint | None) -> None:
        self._window = window
        super().__init__(config, resume=resume)

    def make_batches(self) -> SharedBatches:
        """Batches of the settings' size, from windows."""
        assert isinstance(self.data, RunData)  # these runs have no task
        settings = self.config.train
        shape = settings.batch_size, settings.sequence_length
        return SharedBatches(self.data.train, *shape, self._window, settings.seed)
