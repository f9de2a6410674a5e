"""Cross-entropy of a linear layer's outputs, which never exist as a whole."""

from math import prod

import numpy as np

from longnet._core import Tensor, ops
from longnet.arguments import integer
from longnet.autograd import Variable, is_recording, record
from longnet.errors import DataError, ShapeError
from longnet.functional.buffers import as_tensor, cast_to, empty, empty_like, matrix, zeros
from longnet.matmul import matmul

_BLOCK = 1 << 20  # elements multiplied by one call


def linear_cross_entropy(
    x: Variable,
    weight: Variable,
    bias: Variable | None,
    targets: np.ndarray | Tensor,
    *,
    chunk: int = 1024,
    ignore_index: int = -100,
) -> Variable:
    r"""Mean cross-entropy, in nats, of ``softmax(linear(x, weight, bias))`` and `targets`.

    .. math:: L = -\frac{1}{|C|} \sum_{m \in C} \log \mathrm{softmax}(x_m W^\top + b)[t_m]

    where C are the tokens that count. Logits of `chunk` tokens exist at one time; where gradients
    are wanted they are taken in the forward pass, in the memory of these logits.

    Parameters
    ----------
    x : Variable (..., K)
    weight : Variable (V, K)
    bias : Variable (V,), optional
    targets : array or Tensor (...), int32 or int64
        0 to V - 1, or `ignore_index` where a token does not count.
    chunk : int
        Tokens of which logits exist at one time, at least 1.
    ignore_index : int

    Returns
    -------
    Variable () float32

    Raises
    ------
    ShapeError
        Shapes do not fit each other.
    DataError
        No token counts.
    """
    targets = as_tensor(targets)
    if weight.data.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        raise ShapeError(f"loss: x {x.shape} and weight {weight.shape}, expected (..., K), (V, K)")
    if targets.shape != x.shape[:-1]:
        raise ShapeError(f"loss: targets {targets.shape}, expected {x.shape[:-1]}")
    chunk = integer("chunk", chunk)
    if chunk < 1:
        raise ShapeError(f"loss: chunk {chunk}, expected at least 1")
    targets = targets.reshape(prod(targets.shape))
    counted = int(np.count_nonzero(targets.numpy() != ignore_index))
    if counted == 0:
        raise DataError(
            f"loss: {targets.size} targets, all {ignore_index}, expected one that counts"
        )

    inputs = [x, weight] if bias is None else [x, weight, bias]
    data = [variable.data for variable in inputs]
    wanted = [is_recording() and variable.requires_grad for variable in inputs]
    gradients = _Gradients(data, wanted, counted)
    losses = empty(targets.shape, x.data, "float32")
    buffer = empty((min(chunk, targets.size), weight.shape[0]), x.data)
    for begin in range(0, targets.size, chunk):
        rows = slice(begin, begin + chunk)
        logits = buffer[: targets[rows].size]
        _logits(logits, rows, *data)
        dlogits = logits if any(wanted) else None
        ops.cross_entropy(losses[rows], dlogits, logits, targets[rows], 1.0, ignore_index)
        gradients.add(rows, logits, *data[:2])
    loss = empty((), losses)
    ops.fill(loss, _sum(losses) / counted)
    return record(loss, inputs, gradients.scaled)


class _Gradients:
    """The gradients of x, weight and bias, as the chunks of logits add to them.

    They are those of the sum of all losses, and become those of the mean at the end: a half
    precision would lose small values if each token's were divided by the number of tokens first.
    """

    def __init__(self, data: list[Tensor], wanted: list[bool], counted: int) -> None:
        self.dtypes = [x.dtype for x in data]
        self.counted = counted
        # Sums over chunks are in float32, whatever the dtype.
        self.sums: list[Tensor | None] = [
            None if not want else empty_like(x) if i == 0 else zeros(x.shape, x, "float32")
            for i, (x, want) in enumerate(zip(data, wanted, strict=True))
        ]

    def add(self, rows: slice, dlogits: Tensor, x: Tensor, weight: Tensor) -> None:
        """Take in the gradient of the logits of some rows."""
        dx, dweight, dbias = [*self.sums, None][:3]
        if dx is not None:
            matmul(matrix(dx)[rows], dlogits, weight)
        if dweight is not None:
            matmul(dweight, dlogits, matrix(x)[rows], transpose_a=True, accumulate=True)
        if dbias is not None:
            part = empty(dbias.shape, dlogits)
            ops.sum_rows(part, dlogits)
            ops.add(dbias, dbias, cast_to(part, "float32"), 1.0)

    def scaled(self, dloss: Tensor) -> list[Tensor | None]:
        """The gradients, given that of the mean loss."""
        factor = dloss.item() / self.counted
        for total in self.sums:
            if total is not None:
                _scale(total, factor)
        return [
            None if total is None else cast_to(total, dtype)
            for total, dtype in zip(self.sums, self.dtypes, strict=True)
        ]


def _logits(
    out: Tensor, rows: slice, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> None:
    matmul(out, matrix(x)[rows], weight, transpose_b=True)
    if bias is not None:
        ops.bias_add(out, out, bias)


def _sum(losses: Tensor) -> float:
    total = empty((1,), losses)
    ops.sum_rows(total, losses.reshape(losses.size, 1))
    return total.item()


def _scale(tensor: Tensor, factor: float) -> None:
    """Multiply a tensor by a number, in its own memory."""
    flat = tensor.reshape(tensor.size)
    zero = zeros((min(_BLOCK, tensor.size),), tensor)
    for begin in range(0, tensor.size, _BLOCK):
        part = flat[begin : begin + _BLOCK]
        ops.add(part, zero[: part.size], part, factor)
