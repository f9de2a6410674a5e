"""Records of updates whose numbers the ranks' devices may still be computing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from longnet._core import Stream, Tensor, ops
from longnet.functional.buffers import empty
from longnet.train.world import World


class Reading:
    """Numbers on their way to the host, which waits for a GPU only where it asks for them.

    Parameters
    ----------
    world : World
    shares : sequence of Tensor
        Of one element each, on one device: of these the ranks' sums are read.
    whole : Tensor
        Of one element that every rank has.
    """

    def __init__(self, world: World, shares: Sequence[Tensor], whole: Tensor) -> None:
        self._event = None
        self._values = empty((len(shares) + 1,), whole)
        for i, tensor in enumerate([*shares, whole]):
            ops.cast(self._values[i : i + 1], tensor.reshape(1))
        world.sum(self._values[: len(shares)])
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
    """What was queued on the ranks' devices, update by update, and has not been looked at yet.

    Parameters
    ----------
    world : World
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: deque[tuple[dict[str, Any], Reading]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> int:
        """How many of the first records this rank has the numbers of."""
        waiting = (i for i, (_, reading) in enumerate(self._waiting) if not reading.ready)
        return next(waiting, len(self._waiting))

    def add(self, record: dict[str, Any], losses: Sequence[Tensor], norm: Tensor) -> None:
        """Append the record of an update.

        `losses` are this rank's shares of its passes' losses, `norm` is that of all gradients.
        """
        self._waiting.append((record, Reading(self._world, losses, norm)))

    def take(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield the first `count` records, waiting for numbers that are not there yet.

        Their ``loss`` is the mean of the passes' losses, their ``grad_norm`` the norm.
        """
        for _ in range(count):
            record, reading = self._waiting.popleft()
            *losses, norm = reading.values()
            yield {
                "step": record["step"],
                "loss": sum(losses) / len(losses),
                "grad_norm": norm,
                **record,
            }
