"""Parameters and gradients of many ranks, and AdamW on them: what several tests share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from longnet import Tensor, nn
from longnet.functional.buffers import cast_to
from longnet.optim import AdamW

# Odd sizes, fewer elements than ranks, more than a bucket of the tests.
SHAPES = {"a": (5, 7), "b": (3,), "c": (1,), "d": (40, 33), "unused": (4, 4), "e": (129,)}
BUCKET_BYTES = 1024

ROUNDING: list[dict[str, Any]] = [
    {},
    {"dtype": "bfloat16"},
    {"dtype": "float16", "stochastic_rounding": True, "seed": 2},
    {"dtype": "bfloat16", "stochastic_rounding": True, "seed": 3},
]


def make(seed: int = 0, device: str = "cpu") -> list[nn.Parameter]:
    rng = np.random.default_rng(seed)
    parameters = []
    for name, shape in SHAPES.items():
        p = nn.Parameter(shape, device=device)
        p.name = name
        p.data = Tensor(rng.standard_normal(shape, dtype=np.float32)).to(device)
        parameters.append(p)
    return parameters


def gradient(rank: int, step: int, name: str) -> np.ndarray | None:
    """What a rank has in a step; whole numbers, so that the order of sums does not matter."""
    if name == "unused" or (name == "e" and step % 2):
        return None
    rng = np.random.default_rng((rank, step, *name.encode()))
    return rng.integers(-9, 10, SHAPES[name]).astype(np.float32)


def steps(
    optimizer: AdamW,
    ranks: Iterable[int],
    begin: int = 0,
    count: int = 3,
    clip: float | None = None,
) -> None:
    """Steps `begin`, `begin` + 1, ... with the gradients of some ranks."""
    for step in range(begin, begin + count):
        optimizer.zero_grad()
        for rank in ranks:
            for p in optimizer.parameters:
                array = gradient(rank, step, p.name)
                if array is not None:
                    p.backward(Tensor(array).to(p.data.device))
        factor = None if clip is None else optimizer.clip_factor(clip, divisor=2.0)[0]
        optimizer.step(0.01 * (step + 1), factor)


def result(optimizer: AdamW) -> dict[str, np.ndarray]:
    """Copies of all weights, of the rounded ones, and of the arrays of the state."""
    arrays = {}
    for p in optimizer.parameters:
        arrays[p.name] = p.data
        if p.rounded is not None:
            arrays[f"{p.name}.now"] = cast_to(p.rounded, "float32")
    state = {k: v for k, v in optimizer.state_dict().items() if isinstance(v, np.ndarray)}
    return {
        name: (array if isinstance(array, np.ndarray) else array.to("cpu").numpy()).copy()
        for name, array in (arrays | state).items()
    }


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Every array that was found has the bits expected."""
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
