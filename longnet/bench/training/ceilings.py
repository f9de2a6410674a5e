"""What the GPU can do at most: a large product, and a copy of memory."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np

import longnet
from longnet import Tensor
from longnet.bench.training.steps import DEVICE, DTYPE
from longnet.functional.buffers import cast_to, empty_like
from longnet.matmul import matmul

SIZE = 8192
REPEATS = 20


def product_flops() -> float:
    """Operations a second of a product of two square matrices of random numbers."""
    rng = np.random.default_rng(0)
    a, b = (
        cast_to(Tensor(rng.standard_normal((SIZE, SIZE), dtype=np.float32)).to(DEVICE), DTYPE)
        for _ in range(2)
    )
    out = empty_like(a)
    return 2 * SIZE**3 / seconds(lambda: matmul(out, a, b))


def copy_bytes() -> float:
    """Bytes a second, read and written, of a copy of a gigabyte."""
    source = Tensor.empty((1 << 28,), "float32", DEVICE)
    return 2 * source.nbytes / seconds(lambda: source.copy())


def seconds(call: Callable[[], object]) -> float:
    """Median time of a call on the GPU, by events."""
    stream = longnet.Stream.current(DEVICE)
    times = []
    for i in range(REPEATS + 3):
        begin = stream.record()
        call()
        end = stream.record()
        end.synchronize()
        if i >= 3:
            times.append(end.seconds_since(begin))
    return median(times)
