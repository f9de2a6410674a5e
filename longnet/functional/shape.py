"""The same elements in another shape."""

from longnet._core import Tensor
from longnet.autograd import Variable, record


def reshape(x: Variable, shape: tuple[int, ...]) -> Variable:
    """View the memory of `x` in another shape.

    Parameters
    ----------
    x : Variable (...)
    shape : tuple of int
        As many elements; one entry may be -1.

    Returns
    -------
    Variable
    """
    before = x.shape

    def backward(dy: Tensor) -> list[Tensor | None]:
        return [dy.reshape(before)]

    return record(x.data.reshape(shape), [x], backward, passes=True)
