"""Activations of the feed-forward network."""

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import empty_like


def gelu(x: Variable) -> Variable:
    r"""Compute :math:`y = x \Phi(x)` with the exact normal distribution function.

    Parameters
    ----------
    x : Variable (...)

    Returns
    -------
    Variable (...)
    """
    x_data = x.data
    y = empty_like(x_data)
    ops.gelu(y, x_data)

    def backward(dy: Tensor) -> list[Tensor | None]:
        dx = empty_like(x_data)
        ops.gelu_backward(dx, dy, x_data)
        return [dx]

    return record(y, [x], backward)


def swiglu(gate: Variable, up: Variable) -> Variable:
    r"""Compute :math:`y = \mathrm{silu}(\mathrm{gate}) \cdot \mathrm{up}`, silu(x) = x sigmoid(x).

    Parameters
    ----------
    gate, up : Variable (...)

    Returns
    -------
    Variable (...)
    """
    gate_data, up_data = gate.data, up.data
    y = empty_like(gate_data)
    ops.swiglu(y, gate_data, up_data)

    def backward(dy: Tensor) -> list[Tensor | None]:
        dgate, dup = empty_like(gate_data), empty_like(up_data)
        ops.swiglu_backward(dgate, dup, dy, gate_data, up_data)
        return [dgate, dup]

    return record(y, [gate, up], backward)
