"""Normalisation of each row."""

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import empty, empty_like


def layer_norm(x: Variable, weight: Variable, bias: Variable, eps: float = 1e-5) -> Variable:
    r"""Compute :math:`y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot w + b` over each row.

    Parameters
    ----------
    x : Variable (..., D)
    weight, bias : Variable (D,)
    eps : float
        Added to the variance.

    Returns
    -------
    Variable (..., D)
    """
    x_data, weight_data, bias_data = x.data, weight.data, bias.data
    y = empty_like(x_data)
    mean = empty(x.shape[:-1], x_data, "float32")
    rstd = empty(x.shape[:-1], x_data, "float32")
    ops.layer_norm(y, mean, rstd, x_data, weight_data, bias_data, eps)

    def backward(dy: Tensor) -> list[Tensor | None]:
        dx, dweight, dbias = empty_like(x_data), empty_like(weight_data), empty_like(bias_data)
        ops.layer_norm_backward(dx, dweight, dbias, dy, x_data, weight_data, mean, rstd)
        return [dx, dweight, dbias]

    return record(y, [x, weight, bias], backward)


def rms_norm(x: Variable, weight: Variable, eps: float = 1e-5) -> Variable:
    r"""Compute :math:`y = x / \sqrt{\overline{x^2} + \epsilon} \cdot w` over each row.

    Parameters
    ----------
    x : Variable (..., D)
    weight : Variable (D,)
    eps : float
        Added to the mean square.

    Returns
    -------
    Variable (..., D)
    """
    x_data, weight_data = x.data, weight.data
    y = empty_like(x_data)
    rstd = empty(x.shape[:-1], x_data, "float32")
    ops.rms_norm(y, rstd, x_data, weight_data, eps)

    def backward(dy: Tensor) -> list[Tensor | None]:
        dx, dweight = empty_like(x_data), empty_like(weight_data)
        ops.rms_norm_backward(dx, dweight, dy, x_data, weight_data, rstd)
        return [dx, dweight]

    return record(y, [x, weight], backward)
