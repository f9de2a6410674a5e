"""New tensors for results, tensors as the matrices that products take, arrays as tensors."""

from collections.abc import Sequence
from math import prod

import numpy as np

from longnet._core import Tensor, ops
from longnet.errors import ConfigError


def empty_like(tensor: Tensor) -> Tensor:
    """Return uninitialised memory of the shape, dtype and device of `tensor`."""
    return Tensor.empty(tensor.shape, tensor.dtype, tensor.device)


def empty(shape: Sequence[int], like: Tensor, dtype: str | None = None) -> Tensor:
    """Return uninitialised memory on the device of `like`, of its dtype unless one is given."""
    return Tensor.empty(shape, dtype or like.dtype, like.device)


def zeros(shape: Sequence[int], like: Tensor, dtype: str | None = None) -> Tensor:
    """Return zeros on the device of `like`, of its dtype unless one is given."""
    tensor = empty(shape, like, dtype)
    ops.fill(tensor, 0.0)
    return tensor


def matrix(tensor: Tensor) -> Tensor:
    """Return a tensor (..., K) as (M, K) over the same memory."""
    return tensor.reshape(prod(tensor.shape[:-1]), tensor.shape[-1])


def cast_to(tensor: Tensor, dtype: str) -> Tensor:
    """Return the values in `dtype`: the tensor itself where it has that dtype."""
    if tensor.dtype == dtype:
        return tensor
    out = empty(tensor.shape, tensor, dtype)
    ops.cast(out, tensor)
    return out


def as_tensor(array: np.ndarray | Tensor) -> Tensor:
    """Return the array as a contiguous tensor, over the same memory where it is one already."""
    tensor = array if isinstance(array, Tensor) else Tensor(array)
    return tensor if tensor.is_contiguous else tensor.copy()


def check_range(op: str, name: str, ids: np.ndarray, stop: int) -> None:
    """Raise `ConfigError` naming the first of `ids` that is not 0 .. stop - 1."""
    if not ids.size or (ids.min() >= 0 and ids.max() < stop):
        return
    where = int(((ids < 0) | (ids >= stop)).argmax())
    raise ConfigError(f"{op}: {name} {where} is {ids.flat[where]}, expected 0 to {stop - 1}")
