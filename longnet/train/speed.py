"""How fast a run is, and how much memory it takes."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Self

from longnet._core import memory_stats
from longnet.config import TrainConfig
from longnet.flops import flops_per_token, peak_flops
from longnet.model import LongNet
from longnet.train.world import World


class Speedometer:
    """Adds up the seconds inside its ``with`` block, and sets tokens in relation to them.

    Parameters
    ----------
    model : LongNet
    settings : TrainConfig
    world : World
    tokens : int
        Trained on so far, by all ranks.
    """

    def __init__(self, model: LongNet, settings: TrainConfig, world: World, tokens: int) -> None:
        self._device, self._ranks = world.device, world.size
        self._flops = flops_per_token(model, settings.sequence_length)
        self._peak_flops = peak_flops(world.device, settings.dtype)
        self.restart(tokens)

    def restart(self, tokens: int) -> None:
        """Count anew from `tokens`."""
        self._tokens, self._spent = tokens, 0.0

    def __enter__(self) -> Self:
        self._began = perf_counter()
        return self

    def __exit__(self, *unused: object) -> None:
        self._spent += perf_counter() - self._began

    def reading(self, tokens: int) -> dict[str, Any]:
        """What a record says of speed and memory, after `tokens`.

        Returns
        -------
        dict
            ``tokens_per_second`` and ``tflops`` of all ranks since the last `restart`,
            ``utilization``, the share of the GPUs' half precision peak where that is known, and
            ``peak_memory_bytes`` of tensors and scratch on this rank's device. Where there are
            several, ``ranks`` and ``tokens_per_second_per_rank`` too.
        """
        rate = (tokens - self._tokens) / self._spent
        record = {
            "tokens_per_second": round(rate, 1),
            "tflops": round(rate * self._flops / 1e12, 3),
        }
        if self._peak_flops is not None:
            peak = self._peak_flops * self._ranks
            record["utilization"] = round(rate * self._flops / peak, 4)
        if self._ranks > 1:
            record["ranks"] = self._ranks
            record["tokens_per_second_per_rank"] = round(rate / self._ranks, 1)
        return record | {"peak_memory_bytes": memory_stats(self._device)["peak_bytes"]}
