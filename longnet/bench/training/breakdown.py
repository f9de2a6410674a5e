"""Where the time of one step goes: its kernels by kind of work, and the gaps between them.

CUPTI's timeline, by way of `torch.profiler`, which sees the kernels of the whole process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from longnet._core import Op, Tensor, ops

# The first pattern that a kernel's name matches says its kind.
KINDS = {
    "attention backward": r"differentiate|sum_delta|prepare",
    "attention forward": r"dilated|attend|mark_rows",
    "loss": r"loss_rows",
    "optimiser": r"\bstep\b|sum_blocks|sum_partials|clip",
    "products": r"gemm|nvjet|cutlass|cublas|splitK|fill_ones",
    "copies and fills": r"^Mem(cpy|set)|fill",
    "norms and elementwise": r"",
}
# The ops of the kinds that memory bounds; every other op with a kernel of ours is elementwise.
OPS = {
    "cross_entropy": "loss",
    "adamw": "optimiser",
    "sum_squares": "optimiser",
    "clip": "optimiser",
    "fill": "copies and fills",
    "matmul": "products",
    "dilated_attention": "attention forward",
    "dilated_attention_backward": "attention backward",
}


@dataclass(frozen=True)
class Kernel:
    """Something that a GPU did, in nanoseconds of one clock."""

    name: str
    begin: int
    end: int


@dataclass
class Breakdown:
    """Seconds of a step by kind of work; ``idle`` while none ran, ``all`` from first to last."""

    seconds: dict[str, float]
    slowest: list[tuple[str, int, float]]  # kernels: name, how often, seconds


def record(step: Callable[[], Callable[[], float]]) -> list[Kernel]:
    """The timeline of one step; another is queued before it and one behind it, as in a run."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        waits = [step() for _ in range(3)]
        waits[-1]()
        torch.cuda.synchronize()
    kernels = [
        Kernel(event.name(), event.start_ns(), event.start_ns() + event.duration_ns())
        for event in profiler.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA
    ]
    return middle_third(sorted(kernels, key=lambda kernel: kernel.begin))


def middle_third(kernels: list[Kernel]) -> list[Kernel]:
    """Of three equal steps the second."""
    count = len(kernels) // 3
    return kernels[count : 2 * count + 1]


def summarise(kernels: list[Kernel], slowest: int = 12) -> Breakdown:
    """Add up the kernels of one step; the last of them is the next step's first."""
    seconds = dict.fromkeys(KINDS, 0.0)
    names: dict[str, list[float]] = {}
    for kernel in kernels[:-1]:
        took = (kernel.end - kernel.begin) * 1e-9
        seconds[kind_of(kernel.name)] += took
        names.setdefault(kernel.name, []).append(took)
    whole = (kernels[-1].begin - kernels[0].begin) * 1e-9
    seconds["idle"] = whole - busy_seconds(kernels[:-1], kernels[-1].begin)
    seconds["all"] = whole
    by_time = sorted(names.items(), key=lambda item: -sum(item[1]))[:slowest]
    return Breakdown(seconds, [(name, len(took), sum(took)) for name, took in by_time])


def kind_of(name: str) -> str:
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, name))


def busy_seconds(kernels: Iterable[Kernel], until: int) -> float:
    """While at least one kernel ran."""
    busy, end = 0, 0
    for kernel in kernels:
        begin, last = max(kernel.begin, end), min(kernel.end, until)
        busy += max(0, last - begin)
        end = max(end, kernel.end)
    return busy * 1e-9


def traffic(step: Callable[[], Callable[[], float]]) -> dict[str, float]:
    """Bytes that the ops of one step read and write at least, by kind of work."""
    total = dict.fromkeys(KINDS, 0.0)
    names = [name for name in dir(ops) if isinstance(getattr(ops, name), Op)]
    originals = {name: getattr(ops, name) for name in names}

    def counting(name: str) -> Callable[..., None]:
        def call(*arguments: Any, **named: Any) -> None:
            tensors = [x for x in (*arguments, *named.values()) if isinstance(x, Tensor)]
            total[OPS.get(name, "norms and elementwise")] += sum(x.nbytes for x in tensors)
            originals[name](*arguments, **named)

        return call

    try:
        for name in names:
            setattr(ops, name, counting(name))
        step()()
    finally:
        for name, op in originals.items():
            setattr(ops, name, op)
    return total
