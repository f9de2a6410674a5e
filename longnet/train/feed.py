"""Batches on a rank's device; a GPU gets the next one while it works on the present one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from longnet._core import Event, Stream, Tensor
from longnet.data import Batches
from longnet.model import IGNORE_INDEX
from longnet.tasks import TaskBatches


def _whole(shape: tuple[int, int]) -> tuple[slice, slice]:
    return slice(None), slice(None)


@dataclass(frozen=True)
class Batch:
    """A rank's tokens and targets (sequences, rows) int32.

    Attributes
    ----------
    inputs, targets : Tensor
    tokens, count : int
        Tokens of the whole batch, of all ranks, and targets of them that count.
    arrived : Event or None
        When a GPU has them.
    """

    inputs: Tensor
    targets: Tensor
    tokens: int
    count: int
    arrived: Event | None = None


class Feed:
    """Hands out a rank's part of each batch, in the order of `batches`.

    Parameters
    ----------
    batches : Batches or TaskBatches
        Where they come from; nothing else takes any from it.
    device : str
        Where they go.
    part : callable, optional
        Given the shape of a batch, which sequences, and which rows of them; by default all. The
        state is that of the whole batches, so that any number of ranks goes on with the same data.
    """

    def __init__(
        self,
        batches: Batches | TaskBatches,
        device: str,
        part: Callable[[tuple[int, int]], tuple[slice, slice]] = _whole,
    ) -> None:
        self._batches = batches
        self._device = device
        self._part = part
        self._stream = None if device == "cpu" else Stream(device)
        self._state = batches.state_dict()  # without the batch that is fetched ahead
        self._ahead: Batch | None = None

    def __next__(self) -> Batch:
        if self._stream is None:
            inputs, targets, tokens, count = self._read()
            batch = Batch(Tensor(inputs), Tensor(targets), tokens, count)
            self._state = self._batches.state_dict()
            return batch
        batch = self._ahead or self._fetch(self._stream)
        self._state = self._batches.state_dict()
        self._ahead = self._fetch(self._stream)
        Stream.current(self._device).wait(batch.arrived)
        return batch

    def _read(self) -> tuple[np.ndarray, np.ndarray, int, int]:
        """This rank's inputs and targets; all ranks' tokens, and how many targets count."""
        arrays = next(self._batches)
        count = int(np.count_nonzero(arrays[1] != IGNORE_INDEX))
        part = self._part(arrays[0].shape)
        inputs, targets = (np.ascontiguousarray(array[part]) for array in arrays)
        return inputs, targets, arrays[0].size, count

    def _fetch(self, stream: Stream) -> Batch:
        *arrays, tokens, count = self._read()
        inputs, targets = (self._copied(array, stream) for array in arrays)
        return Batch(inputs, targets, tokens, count, stream.record())

    def _copied(self, array: np.ndarray, stream: Stream) -> Tensor:
        pinned = Tensor.empty(array.shape, str(array.dtype), pinned=True)
        pinned.numpy()[...] = array
        return pinned.to(self._device, stream=stream)

    def state_dict(self) -> dict[str, Any]:
        """Return where the batches go on, as `Batches.state_dict`."""
        return self._state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, as `Batches.load_state_dict`."""
        self._batches.load_state_dict(state)
        self._state, self._ahead = self._batches.state_dict(), None
