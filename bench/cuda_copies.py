"""How fast tensors go to and from a GPU, and what allocating one costs.

    python bench/cuda_copies.py

Prints one line a way of copying: the median of 10 copies of 1 GiB, in GB/s.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

import longnet
from longnet import Stream, Tensor

BYTES = 1 << 30
REPEATS = 10


def rate(call: Callable[[], object], moved: int = BYTES) -> str:
    """GB/s of a call that moves so many bytes and is followed by a wait."""
    seconds = []
    for _ in range(REPEATS + 1):
        longnet.synchronize("cuda")
        begin = time.perf_counter()
        result = call()
        longnet.synchronize("cuda")
        seconds.append(time.perf_counter() - begin)
        del result
    return f"{moved / statistics.median(seconds[1:]) / 1e9:8.1f} GB/s"


def main() -> None:
    """Measures and prints."""
    _, reason, details = longnet._core.cuda_status()
    print(reason or details["devices"][0]["name"])
    rng = np.random.default_rng(0)
    pageable = Tensor(rng.integers(0, 255, BYTES, np.uint8))
    pinned = Tensor.empty(BYTES, "uint8", pinned=True)
    pinned.numpy()[...] = pageable.numpy()
    on_gpu = pageable.to("cuda")
    stream = Stream()
    print("to the GPU, pageable  ", rate(lambda: pageable.to("cuda")))
    print("to the GPU, pinned    ", rate(lambda: pinned.to("cuda", stream=stream)))
    print("to the host, pageable ", rate(lambda: on_gpu.to("cpu")))
    print("to the host, pinned   ", rate(lambda: on_gpu.to("cpu", stream=stream)))
    print("on the GPU, read+write", rate(on_gpu.copy, 2 * BYTES))
    halves = on_gpu.reshape(-1, 128)[:, :64]
    print("strided, read+write   ", rate(halves.copy, BYTES))
    begin = time.perf_counter()
    for _ in range(10_000):
        Tensor.empty(1 << 20, "uint8", "cuda")
    print(f"allocate and free      {(time.perf_counter() - begin) / 10_000 * 1e6:8.2f} us")


if __name__ == "__main__":
    main()
