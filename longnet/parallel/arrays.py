"""Sequences that are read some rows at a time: arrays, memory maps, rows made when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from longnet._core import Tensor
from longnet.errors import DTypeError, ShapeError


@dataclass(frozen=True)
class Generated:
    """A sequence that exists nowhere as a whole: its rows are made when they are asked for.

    Attributes
    ----------
    shape : tuple of int
        (B, N, H, D).
    dtype : str
        'float32', 'float16' or 'bfloat16'.
    make : function
        ``make(begin, end)`` returns rows [begin, end): (B, end - begin, H, D) of that dtype, on any
        device. Some rows are asked for twice, and must be the same then.

    Examples
    --------
    >>> q = Generated((1, 2**30, 12, 64), "bfloat16", lambda begin, end: project(begin, end))
    """

    shape: tuple[int, int, int, int]
    dtype: str
    make: Callable[[int, int], Any]

    def __getitem__(self, key: tuple[slice, slice]) -> Any:
        begin, end, _ = key[1].indices(self.shape[1])
        return self.make(begin, end)


def dtype_of(x: Any) -> str:
    """The name of an array's dtype, as `Tensor.dtype` has it."""
    return str(x.dtype).removeprefix("torch.")


def rows_of(name: str, x: Any, begin: int, end: int) -> Tensor:
    """Rows [begin, end) of `x`, contiguous, where `x` has them: over the same memory if possible.

    Raises
    ------
    ShapeError, DTypeError
        `x` gave other rows than it should have; `name` begins the message.
    """
    given = x[:, begin:end]
    rows = given if isinstance(given, Tensor) else Tensor(given)
    shape = (x.shape[0], end - begin, *x.shape[2:])
    if rows.shape != shape:
        raise ShapeError(f"{name}: rows {begin} to {end} are {rows.shape}, expected {shape}")
    if rows.dtype != dtype_of(x):
        raise DTypeError(f"{name}: rows {begin} to {end} are {rows.dtype}, expected {dtype_of(x)}")
    return rows if rows.is_contiguous else rows.copy()
