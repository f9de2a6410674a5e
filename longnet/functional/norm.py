"""Normalisation of each row, alone, of GELU, and of a sum: each one pass over memory."""

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import empty, empty_like


def layer_norm(
    x: Variable, weight: Variable, bias: Variable, eps: float = 1e-5, *, gelu: bool = False
) -> Variable:
    r"""Compute :math:`y = (h - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot w + b` over each row.

    Parameters
    ----------
    x : Variable (..., D)
    weight, bias : Variable (D,)
    eps : float
        Added to the variance.
    gelu : bool
        Whether h is ``gelu(x)``, which is computed again for the gradient, instead of `x`.

    Returns
    -------
    Variable (..., D)
    """
    y = empty_like(x.data)
    mean, rstd = _statistic(x.data), _statistic(x.data)
    ops.layer_norm(y, mean, rstd, x.data, weight.data, bias.data, eps, gelu=gelu)
    return _layer_norm_of(x, y, mean, rstd, weight, bias, gelu)


def add_layer_norm(
    x: Variable, residual: Variable, weight: Variable, bias: Variable, eps: float = 1e-5
) -> tuple[Variable, Variable]:
    """Compute ``x + residual`` and its layer norm.

    Parameters
    ----------
    x, residual : Variable (..., D)
    weight, bias : Variable (D,)
    eps : float
        Added to the variance.

    Returns
    -------
    tuple of Variable (..., D)
        The sum and the norm, the same bits that `add` and `layer_norm` give.
    """
    y, total = empty_like(x.data), empty_like(x.data)
    mean, rstd = _statistic(x.data), _statistic(x.data)
    ops.layer_norm(
        y, mean, rstd, x.data, weight.data, bias.data, eps, sum=total, residual=residual.data
    )
    out = _sum_of(x, residual, total)
    return out, _layer_norm_of(out, y, mean, rstd, weight, bias, False)


def rms_norm(x: Variable, weight: Variable, eps: float = 1e-5, *, gelu: bool = False) -> Variable:
    r"""Compute :math:`y = h / \sqrt{\overline{h^2} + \epsilon} \cdot w` over each row.

    Parameters
    ----------
    x : Variable (..., D)
    weight : Variable (D,)
    eps : float
        Added to the mean square.
    gelu : bool
        Whether h is ``gelu(x)``, which is computed again for the gradient, instead of `x`.

    Returns
    -------
    Variable (..., D)
    """
    y, rstd = empty_like(x.data), _statistic(x.data)
    ops.rms_norm(y, rstd, x.data, weight.data, eps, gelu=gelu)
    return _rms_norm_of(x, y, rstd, weight, gelu)


def add_rms_norm(
    x: Variable, residual: Variable, weight: Variable, eps: float = 1e-5
) -> tuple[Variable, Variable]:
    """Compute ``x + residual`` and its RMS norm.

    Parameters
    ----------
    x, residual : Variable (..., D)
    weight : Variable (D,)
    eps : float
        Added to the mean square.

    Returns
    -------
    tuple of Variable (..., D)
        The sum and the norm, the same bits that `add` and `rms_norm` give.
    """
    y, total, rstd = empty_like(x.data), empty_like(x.data), _statistic(x.data)
    ops.rms_norm(y, rstd, x.data, weight.data, eps, sum=total, residual=residual.data)
    out = _sum_of(x, residual, total)
    return out, _rms_norm_of(out, y, rstd, weight, False)


def _statistic(x: Tensor) -> Tensor:
    """Return memory for one number a row."""
    return empty(x.shape[:-1], x, "float32")


def _sum_of(x: Variable, residual: Variable, total: Tensor) -> Variable:
    def backward(dsum: Tensor) -> list[Tensor | None]:
        return [dsum, dsum]

    return record(total, [x, residual], backward, passes=True)


def _layer_norm_of(
    x: Variable,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Variable,
    bias: Variable,
    gelu: bool,
) -> Variable:
    """Record y, the norm of `x`; what else wants the gradient of `x` is added in the same pass."""
    x_data, weight_data = x.data, weight.data

    def backward(dy: Tensor, dx_so_far: Tensor | None) -> list[Tensor | None]:
        dx, dweight, dbias = (empty_like(tensor) for tensor in (x_data, weight_data, weight_data))
        ops.layer_norm_backward(
            dx, dweight, dbias, dy, x_data, weight_data, mean, rstd, dx_so_far, gelu
        )
        return [dx, dweight, dbias]

    return record(y, [x, weight, bias], backward, absorbs=True)


def _rms_norm_of(x: Variable, y: Tensor, rstd: Tensor, weight: Variable, gelu: bool) -> Variable:
    """Record y, the norm of `x`; what else wants the gradient of `x` is added in the same pass."""
    x_data, weight_data = x.data, weight.data

    def backward(dy: Tensor, dx_so_far: Tensor | None) -> list[Tensor | None]:
        dx, dweight = empty_like(x_data), empty_like(weight_data)
        ops.rms_norm_backward(dx, dweight, dy, x_data, weight_data, rstd, dx_so_far, gelu)
        return [dx, dweight]

    return record(y, [x, weight], backward, absorbs=True)
