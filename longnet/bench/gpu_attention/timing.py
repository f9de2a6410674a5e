"""Times of several contenders in turn, by events of one stream, and the memory that each takes."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any, Protocol

import torch

import longnet
from longnet.bench.gpu_attention.table import Step

Pair = tuple[torch.cuda.Event, torch.cuda.Event]
Events = dict[tuple[int, str], list[Pair]]

SECONDS = 2.0  # that the repetitions of a run may take, all contenders together
FEWEST = 3


class Contender(Protocol):
    """Somebody who computes; the steps are its methods, of the number of the input set."""

    def prepare(self, steps: tuple[str, ...]) -> int:
        """Make inputs; how many sets of them there are."""
        ...

    def input_bytes(self, step: str) -> int: ...


@contextmanager
def queue() -> Iterator[None]:
    """One stream for PyTorch and longnet."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), longnet.Stream(handle=stream.cuda_stream):
        yield


def release() -> None:
    """Both allocators give back what they keep for later."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    longnet.empty_cache("cuda")


def peak_bytes() -> int:
    """The most held since `held_bytes` was asked; a contender takes from one allocator alone."""
    return torch.cuda.max_memory_allocated() + longnet.memory_stats("cuda")["peak_bytes"]


def held_bytes() -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    longnet.reset_peak_memory("cuda")
    return torch.cuda.memory_allocated() + longnet.memory_stats("cuda")["bytes"]


def milliseconds(pairs: list[Pair]) -> list[float]:
    return [begin.elapsed_time(end) for begin, end in pairs]


class Run:
    """Contenders that are measured in turn. What one of them cannot do becomes its error."""

    def __init__(self, makers: list[tuple[Callable[[], Contender], tuple[str, ...]]]) -> None:
        self.contenders: list[Contender | None] = [None] * len(makers)
        self.sets = [0] * len(makers)
        self.results: list[dict[str, Step]] = [{} for _ in makers]
        self.live: list[tuple[int, str]] = []  # a contender's number and a step
        for i, (make, steps) in enumerate(makers):
            self.live += [(i, step) for step in steps]
            self.attempt([(i, step) for step in steps], self.prepare, i, make, steps)

    def measure(self, repeats: int) -> list[dict[str, Step]]:
        """Medians, of at most so many repetitions; every other one goes the other way round."""
        for key in list(self.live):
            self.attempt([key], self.note_memory, *key)
        events: Events = {key: [] for key in self.live}
        try:
            self.repeat(0, events)
            torch.cuda.synchronize()
            seconds = sum(sum(milliseconds(events[key])) for key in self.live) * 1e-3
            events = {key: [] for key in self.live}
            most = max(FEWEST, int(SECONDS / max(seconds, 1e-6)))
            for i in range(min(repeats, most)):
                self.repeat(i, events)
            torch.cuda.synchronize()
        except Exception as error:  # of a kernel queued before, so nothing of this run counts
            for i, step in self.live:
                self.results[i][step] = Step.failed(error)
            return self.results
        for i, step in self.live:
            times = milliseconds(events[i, step])
            self.results[i][step].ms = median(times)
            self.results[i][step].repeats = len(times)
        return self.results

    def prepare(self, i: int, make: Callable[[], Contender], steps: tuple[str, ...]) -> None:
        contender = make()
        self.sets[i] = contender.prepare(steps)
        self.contenders[i] = contender

    def note_memory(self, i: int, step: str) -> None:
        """The first call, which also compiles and fills the allocators."""
        contender = self.contenders[i]
        held = held_bytes()
        results = getattr(contender, step)(0)
        outputs = sum(x.nbytes for x in results)
        extra = peak_bytes() - held - outputs
        share = extra / (outputs + contender.input_bytes(step))
        self.results[i][step] = Step(extra_bytes=extra, extra=share)

    def repeat(self, number: int, events: Events) -> None:
        """Every step once, queued without a wait."""
        for key in self.live[::-1] if number % 2 else self.live[:]:
            self.attempt([key], self.time, *key, number, events[key])

    def time(self, i: int, step: str, number: int, pairs: list[Pair]) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        getattr(self.contenders[i], step)(number % self.sets[i])
        end.record()
        pairs.append((begin, end))

    def attempt(self, keys: list[tuple[int, str]], call: Callable[..., None], *values: Any) -> None:
        """A call about some steps: an exception is their error, and they are not tried again."""
        try:
            call(*values)
            return
        except Exception as error:
            failed = Step.failed(error)
        for i, step in keys:
            self.results[i][step] = failed
            self.live.remove((i, step))
        with suppress(Exception):  # of a device that has failed for good: the next call says so
            release()


@contextmanager
def kernels(choice: str | None) -> Iterator[None]:
    """Which of longnet's kernels are used in a block: LONGNET_CUDA_KERNELS is read at each call."""
    name = "LONGNET_CUDA_KERNELS"
    before = os.environ.get(name)
    if choice is not None:
        os.environ[name] = choice
    try:
        yield
    finally:
        if choice is not None:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before
