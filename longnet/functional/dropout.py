"""Dropout."""

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import empty_like


def dropout(x: Variable, p: float, seed: int) -> Variable:
    """Set each element to 0 with probability `p`, and divide the others by ``1 - p``.

    Parameters
    ----------
    x : Variable (...)
    p : float
        In [0, 1).
    seed : int
        Which elements: 0 .. 2^64 - 1, as `longnet.random` hands out.

    Returns
    -------
    Variable (...)
        `x` itself where `p` is 0.
    """
    if p == 0.0:
        return x
    y = empty_like(x.data)
    ops.dropout(y, x.data, p, seed)

    def backward(dy: Tensor) -> list[Tensor | None]:
        dx = empty_like(dy)
        ops.dropout(dx, dy, p, seed)  # drops the same elements
        return [dx]

    return record(y, [x], backward)
