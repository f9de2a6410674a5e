"""Matrix product with a weight."""

from math import prod

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.errors import ShapeError
from longnet.functional.buffers import empty, empty_like, matrix
from longnet.matmul import matmul


def linear(x: Variable, weight: Variable, bias: Variable | None = None) -> Variable:
    r"""Compute :math:`y = x W^\top + b`.

    Parameters
    ----------
    x : Variable (..., K)
    weight : Variable (O, K)
    bias : Variable (O,), optional

    Returns
    -------
    Variable (..., O)

    Raises
    ------
    ShapeError
        The last dimension of `x` is not that of `weight`.
    """
    if weight.data.ndim != 2 or not x.shape or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: x {x.shape} and weight {weight.shape}, expected (..., K), (O, K)"
        )
    x_data, weight_data = x.data, weight.data
    rows, outputs = prod(x.shape[:-1]), weight.shape[0]
    y = empty((rows, outputs), x_data)
    matmul(
        y, matrix(x_data), weight_data, bias=None if bias is None else bias.data, transpose_b=True
    )
    wants_x, wants_weight = x.requires_grad, weight.requires_grad
    wants_bias = bias is not None and bias.requires_grad

    def backward(dy: Tensor, dx_so_far: Tensor | None) -> list[Tensor | None]:
        dx = dweight = dbias = None
        dy = matrix(dy)
        if wants_x:
            dx = empty_like(x_data)
            # several layers of one input add up here, in float32
            matmul(matrix(dx), dy, weight_data, c=None if dx_so_far is None else matrix(dx_so_far))
        if wants_bias:
            dbias = empty((outputs,), dy)
        if wants_weight:
            dweight = empty_like(weight_data)
            matmul(dweight, dy, matrix(x_data), dbias=dbias, transpose_a=True)
        elif wants_bias:
            ops.sum_rows(dbias, dy)
        return [dx, dweight, dbias][: 2 if bias is None else 3]

    inputs = [x, weight] if bias is None else [x, weight, bias]
    return record(y.reshape(*x.shape[:-1], outputs), inputs, backward, absorbs=True)
