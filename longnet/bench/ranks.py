"""Some of the ranks that a launcher has started, and how long they take."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import longnet
from longnet.bench.devices import CpuDevice, gpu_hardware
from longnet.communicator import Communicator


def sizes(size: int) -> list[int]:
    """1, 2, 4, ... up to all ranks."""
    return sorted({1 << i for i in range(size.bit_length())} | {size})


@contextmanager
def subset(world: Communicator, size: int) -> Iterator[Communicator | None]:
    """The first `size` ranks; the others get None, and all go on when these are done."""
    comm = world.split(0 if world.rank < size else None)
    yield comm
    if comm is not None:
        comm.close()
    world.barrier()


def timed(device: str, call: Callable[[], object]) -> tuple[float, int]:
    """Seconds that a call takes, work queued on the device included, and the most bytes held."""
    _settle(device)
    longnet.reset_peak_memory(device)
    begin = perf_counter()
    call()
    _settle(device)
    return perf_counter() - begin, longnet.memory_stats(device)["peak_bytes"]


def slowest(comm: Communicator, seconds: float, peak: int) -> tuple[float, int]:
    """The largest of each over the ranks."""
    times, peaks = zip(*comm.gather_objects((seconds, peak)), strict=True)
    return max(times), max(peaks)


def progress(world: Communicator, record: dict[str, Any]) -> None:
    """Show what was measured while the rest is: the first rank's."""
    if world.rank == 0:
        print(json.dumps(record), file=sys.stderr, flush=True)


def hardware(world: Communicator) -> dict[str, object]:
    """What the numbers depend on."""
    found = CpuDevice().hardware() if world.device == "cpu" else gpu_hardware()
    return found | {"ranks": world.size}


def _settle(device: str) -> None:
    if device != "cpu":
        longnet.synchronize(device)
