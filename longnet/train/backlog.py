"""Records of updates whose numbers a device may still be computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from longnet._core import Stream, Tensor, ops
from longnet.functional.buffers import empty


class Reading:
    """Numbers on their way to the host, which waits for a GPU only where it asks for them.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of one element each, on one device.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._event = None
        self._values = empty((len(tensors),), tensors[0])
        for i, tensor in enumerate(tensors):
            ops.cast(self._values[i : i + 1], tensor.reshape(1))
        if self._values.device != "cpu":
            stream = Stream.current(self._values.device)
            self._values = self._values.to("cpu", stream=stream)
            self._event = stream.record()

    @property
    def ready(self) -> bool:
        """Whether `values` returns at once."""
        return self._event is None or self._event.done

    def values(self) -> list[float]:
        """Return the numbers, waiting for them if need be."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.numpy().tolist()


class Backlog:
    """What was queued on a device, update by update, and has not been looked at yet."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[dict[str, Any], Reading]] = deque()

    def add(self, record: dict[str, Any], losses: Sequence[Tensor], norm: Tensor) -> None:
        """Append the record of an update, of which `losses` and `norm` are still to come."""
        self._waiting.append((record, Reading([*losses, norm])))

    def take(self, *, wait: bool) -> Iterator[dict[str, Any]]:
        """Yield the records whose numbers are there, with `wait` all, the earliest first.

        Their ``loss`` is the mean of the losses, their ``grad_norm`` the norm.
        """
        while self._waiting and (wait or self._waiting[0][1].ready):
            record, reading = self._waiting.popleft()
            *losses, norm = reading.values()
            yield {
                "step": record["step"],
                "loss": sum(losses) / len(losses),
                "grad_norm": norm,
                **record,
            }
