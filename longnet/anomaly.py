"""Finding the op that made the first number which is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from longnet._core import Tensor
from longnet.errors import DivergenceError

_detecting: ContextVar[bool] = ContextVar("detecting", default=False)


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Look at every result and every gradient on the tape inside the ``with`` block.

    Each is copied to the host, which takes many times as long as computing it.

    Raises
    ------
    DivergenceError
        The first op whose result or gradient holds NaN or infinity, with its shape and the place.
    """
    token = _detecting.set(True)
    try:
        yield
    finally:
        _detecting.reset(token)


def check(op: Callable[..., object], what: str, tensor: Tensor) -> None:
    """Raise if anomalies are looked for and `tensor`, which `op` made, has one.

    `op` is the op's gradient function, by whose name the op is called.
    """
    if not _detecting.get() or tensor.dtype not in ("float32", "float16", "bfloat16"):
        return
    array = tensor.to("cpu").numpy()
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(map(int, np.unravel_index(bad.argmax(), array.shape)))
        index = f" at {where}" if where else ""
        raise DivergenceError(
            f"{_name(op)}: found {float(array[where])}{index} in {what} of shape {array.shape}, "
            f"{int(bad.sum())} of {array.size} elements, expected finite numbers"
        )


def _name(op: Callable[..., object]) -> str:
    """The function that recorded `op`; of a private one, the module."""
    recorded, _, _ = op.__qualname__.rpartition(".<locals>.")
    name = (recorded or op.__qualname__.partition(".")[0]).rpartition(".")[2]
    return op.__module__.rpartition(".")[2] if name.startswith("_") else name
