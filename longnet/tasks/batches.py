"""Batches of a task's examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longnet.arguments import integer
from longnet.errors import DataError
from longnet.tasks.protocol import IGNORE, Example, Task
from longnet.tasks.workers import Request, Workers

_BATCHES_AHEAD = 2


def collate(examples: Sequence[Example], length: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples as the rows of a batch, filled up on the right.

    Parameters
    ----------
    examples : sequence of Example
        B examples of at most `length` tokens.
    length : int
        N.
    pad : int
        Token that fills a row; the targets there are `IGNORE`.

    Returns
    -------
    inputs, targets : numpy.ndarray, (B, N) int32
    """
    inputs = np.full((len(examples), length), pad, np.int32)
    targets = np.full((len(examples), length), IGNORE, np.int32)
    for row, example in enumerate(examples):
        inputs[row, : example.tokens.size] = example.tokens
        targets[row, : example.targets.size] = example.targets
    return inputs, targets


class TaskBatches:
    """Endless iterator over the examples of a task, in the order of their indices.

    Parameters
    ----------
    task : Task
        Makes the examples.
    batch_size : int
        Rows of a batch, B.
    length : int
        Tokens of a row, N.
    seed : int
        0 .. 2^64 - 1. Two seeds have no example in common but by chance: one is for training,
        another for evaluation.
    workers : int
        Processes that make the examples of the next batches ahead, for tasks that take their time
        (images). A script that asks for them does so under ``if __name__ == "__main__"``, since
        they import it. 0: examples are made when they are wanted.

    Raises
    ------
    DataError
        A number is out of range, or `length` is under the task's minimum.
    TypeError
        A number is none.
    """

    def __init__(
        self, task: Task, batch_size: int, length: int, seed: int = 0, *, workers: int = 0
    ) -> None:
        if integer("batch_size", batch_size) < 1:
            raise DataError(f"batch_size: {batch_size}, expected at least 1")
        if integer("workers", workers) < 0:
            raise DataError(f"workers: {workers}, expected at least 0")
        task.check_length(length)
        self._task, self._batch_size, self._length = task, int(batch_size), int(length)
        self._seed, self._position = _checked("seed", integer("seed", seed)), 0
        self._workers = Workers(task, int(workers)) if workers else None

    def __iter__(self) -> TaskBatches:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch.

        Returns
        -------
        inputs, targets : numpy.ndarray, (B, N) int32
            ``targets[b, n]`` is what is asked after ``inputs[b, n]``, or `IGNORE`.
        """
        return collate(self.take(self._batch_size), self._length, self._task.pad)

    def take(self, count: int) -> list[Example]:
        """The next `count` examples."""
        first = self._position
        requests = [self._request(index) for index in range(first, first + count)]
        if self._workers is None:
            examples = [self._task.make(*request) for request in requests]
        else:
            after = range(first + count, first + (1 + _BATCHES_AHEAD) * count)
            examples = self._workers.take(requests, [self._request(index) for index in after])
        self._position += count
        return examples

    def _request(self, index: int) -> Request:
        """Seed, index and length of an example."""
        return self._seed, index, self._length

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on from here, as numbers and strings that JSON can hold."""
        return {
            "task": self._task.name,
            "seed": self._seed,
            "length": self._length,
            "position": self._position,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; the batch size may differ, the position counts examples.

        Raises
        ------
        DataError
            If `state` lacks a key, belongs to another task or length, or is out of range. Nothing
            has changed then.
        """
        expected = self.state_dict()
        missing = [key for key in expected if key not in state]
        if missing:
            raise DataError(
                f"task position: no {missing[0]!r}, expected keys {', '.join(expected)}"
            )
        for key in ("task", "length"):
            if state[key] != expected[key]:
                raise DataError(f"task position: {key} {state[key]!r}, expected {expected[key]!r}")
        seed, position = (_checked(key, state[key]) for key in ("seed", "position"))
        self._seed, self._position = seed, position


def _checked(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise DataError(f"{key}: {value!r}, expected an integer 0..2^64-1")
    return value
