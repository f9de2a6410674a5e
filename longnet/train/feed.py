"""Batches on a run's device; a GPU gets the next one while it works on the present one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from longnet._core import Event, Stream, Tensor
from longnet.data import Batches


@dataclass(frozen=True)
class Batch:
    """Tokens and targets (B, N) int32, which all count.

    Attributes
    ----------
    inputs, targets : Tensor
    arrived : Event or None
        When a GPU has them.
    """

    inputs: Tensor
    targets: Tensor
    arrived: Event | None = None


class Feed:
    """Hands out batches, in the order of `batches`.

    Parameters
    ----------
    batches : Batches
        Where they come from; nothing else takes any from it.
    device : str
        Where they go.
    """

    def __init__(self, batches: Batches, device: str) -> None:
        self._batches = batches
        self._device = device
        self._stream = None if device == "cpu" else Stream(device)
        self._state = batches.state_dict()  # without the batch that is fetched ahead
        self._ahead: Batch | None = None

    def __next__(self) -> Batch:
        if self._stream is None:
            batch = Batch(*map(Tensor, next(self._batches)))
            self._state = self._batches.state_dict()
            return batch
        batch = self._ahead or self._fetch(self._stream)
        self._state = self._batches.state_dict()
        self._ahead = self._fetch(self._stream)
        Stream.current(self._device).wait(batch.arrived)
        return batch

    def _fetch(self, stream: Stream) -> Batch:
        tensors = [self._copied(array, stream) for array in next(self._batches)]
        return Batch(*tensors, stream.record())

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
