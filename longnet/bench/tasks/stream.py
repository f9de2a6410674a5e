"""Batches of a training, whole ones made ahead in other processes, until its time is up."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from longnet.tasks import IGNORE, TaskBatches
from longnet.tasks.workers import Workers

_BLOCKS_AHEAD = 3  # for each process


class Block(NamedTuple):
    """A batch as it travels between processes.

    Attributes
    ----------
    inputs : numpy.ndarray, (rows, n) uint16
    places, values : numpy.ndarray, (k,) int32 and uint16
        The targets that count, and where they lie, row after row.
    """

    inputs: np.ndarray
    places: np.ndarray
    values: np.ndarray

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets, (rows, n) int32."""
        targets = np.full(self.inputs.shape, IGNORE, np.int32)
        targets.ravel()[self.places] = self.values
        return self.inputs.astype(np.int32), targets


class BlockMaker:
    """Makes the blocks of a training by their numbers.

    Parameters
    ----------
    turns : sequence of TaskBatches
        Where the blocks come from, in turn.
    rows : int
        Of a block.
    """

    def __init__(self, turns: Sequence[TaskBatches], rows: int) -> None:
        self.name = turns[0].state_dict()["task"]
        self._turns, self.rows = turns, rows

    def make(self, number: int) -> Block:
        """Block `number` of the training, counted from 0."""
        batches = self._turns[number % len(self._turns)]
        batches.load_state_dict({**batches.state_dict(), "position": number * self.rows})
        inputs, targets = next(batches)
        places = np.flatnonzero(targets != IGNORE)
        values = targets.ravel()[places].astype(np.uint16)
        return Block(inputs.astype(np.uint16), places.astype(np.int32), values)


class Stream:
    """Endless batches for a `longnet.train.feed.Feed`.

    Parameters
    ----------
    maker : BlockMaker
    state : mapping
        What a checkpoint keeps of the data: this, with the position reached.
    first : int
        Number of the first block.
    workers : int
        Processes that make blocks ahead; 0: they are made when they are wanted.
    until : float
        Time of `time.monotonic` from which each batch comes with a SIGTERM for this process, so
        that training ends.
    """

    def __init__(
        self,
        maker: BlockMaker,
        state: Mapping[str, Any],
        first: int,
        *,
        workers: int = 0,
        until: float = float("inf"),
    ) -> None:
        self.expired = False
        self._state = state
        self._maker, self._number, self._ahead = maker, first, workers * _BLOCKS_AHEAD
        self._until = until
        # New processes begin with one thread each: there are many of them.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._workers = Workers(maker, workers) if workers else None

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch: inputs and targets, (B, n) int32."""
        if monotonic() >= self._until:
            self.expired = True
            signal.raise_signal(signal.SIGTERM)
        block = self._made()
        self._number += 1
        return block.arrays()

    def _made(self) -> Block:
        if self._workers is None:
            return self._maker.make(self._number)
        following = range(self._number + 1, self._number + 1 + self._ahead)
        return self._workers.take([(self._number,)], [(number,) for number in following])[0]

    def state_dict(self) -> dict[str, Any]:
        """Where the batches go on, as `TaskBatches.state_dict`."""
        return {**self._state, "position": self._number * self._maker.rows}
