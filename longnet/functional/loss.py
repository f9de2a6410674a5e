"""Cross-entropy of a linear layer's outputs, which never exist as a whole."""

from math import prod

import numpy as np

from longnet._core import Tensor, ops
from longnet.arguments import integer
from longnet.autograd import Variable, is_recording, record
from longnet.errors import ConfigError, DataError, ShapeError
from longnet.functional.buffers import as_tensor, check_range, empty, empty_like, matrix, zeros
from longnet.matmul import matmul


def count_targets(targets: np.ndarray | Tensor, vocabulary: int, ignore_index: int = -100) -> int:
    """Count the targets, in host memory, that are not `ignore_index`.

    Raises
    ------
    ConfigError
        One that counts is not 0 to `vocabulary` - 1, or they lie on a GPU.
    """
    targets = as_tensor(targets)
    if targets.device != "cpu":
        raise ConfigError(f"loss: targets on {targets.device} and no count, expected one")
    ids = targets.numpy()
    counts = ids != ignore_index
    check_range("loss", "target", np.where(counts, ids, 0), vocabulary)
    return int(np.count_nonzero(counts))


def linear_cross_entropy(
    x: Variable,
    weight: Variable,
    bias: Variable | None,
    targets: np.ndarray | Tensor,
    *,
    chunk: int = 1024,
    ignore_index: int = -100,
    count: int | None = None,
) -> Variable:
    r"""Mean cross-entropy, in nats, of ``softmax(linear(x, weight, bias))`` and `targets`.

    .. math:: L = -\frac{1}{|C|} \sum_{m \in C} \log \mathrm{softmax}(x_m W^\top + b)[t_m]

    where C are the tokens that count. Logits of `chunk` tokens exist at one time; where gradients
    are wanted they are taken in the forward pass, in the memory of these logits. On a GPU nothing
    is waited for.

    Parameters
    ----------
    x : Variable (..., K)
    weight : Variable (V, K)
    bias : Variable (V,), optional
    targets : array or Tensor (...), int32 or int64
        0 to V - 1, or `ignore_index` where a token does not count. They are copied to the device
        of `x`; those that lie on a GPU already are taken as they are.
    chunk : int
        Tokens of which logits exist at one time, at least 1. A GPU wants some thousands.
    ignore_index : int
    count : int, optional
        |C|, which may count tokens that are elsewhere too: the result is then a share of the mean.
        By default those here; targets on a GPU need it.

    Returns
    -------
    Variable () float32

    Raises
    ------
    ShapeError
        Shapes do not fit each other.
    DataError
        `count` is 0, given or counted.
    ConfigError
        A target is out of range, `count` is below the number of those here that count, or targets
        on a GPU have no `count`.
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
    if count is None or targets.device == "cpu":
        here = count_targets(targets, weight.shape[0], ignore_index)
        count = here if count is None else integer("count", count)
        if count < here:
            raise ConfigError(f"loss: count is {count}, expected {here} or more, which count here")
    if count < 1:
        raise DataError(
            f"loss: {targets.size} targets, all {ignore_index}, expected one that counts"
        )
    if targets.device != x.data.device:
        targets = targets.to(x.data.device)

    inputs = [x, weight] if bias is None else [x, weight, bias]
    data = [variable.data for variable in inputs]
    wanted = [is_recording() and variable.requires_grad for variable in inputs]
    gradients = _Gradients(data, wanted, count)
    losses = empty(targets.shape, x.data, "float32")
    buffer = empty((min(chunk, targets.size), weight.shape[0]), x.data)
    for begin in range(0, targets.size, chunk):
        rows = slice(begin, begin + chunk)
        logits = buffer[: targets[rows].size]
        _logits(logits, rows, *data)
        dlogits = logits if any(wanted) else None
        ops.cross_entropy(losses[rows], dlogits, logits, targets[rows], 1.0, ignore_index)
        gradients.add(rows, logits, *data[:2])
    return record(_mean(losses, count), inputs, gradients.scaled)


class _Gradients:
    """The gradients of x, weight and bias, as the chunks of logits add to them.

    They are those of the sum of all losses, and become those of the mean at the end: a half
    precision would lose small values if each token's were divided by the number of tokens first.
    """

    def __init__(self, data: list[Tensor], wanted: list[bool], count: int) -> None:
        self.dtypes = [x.dtype for x in data]
        self.count = count
        # Sums over chunks are in float32, whatever the dtype.
        self.sums: list[Tensor | None] = [
            None if not want else empty_like(x) if i == 0 else zeros(x.shape, x, "float32")
            for i, (x, want) in enumerate(zip(data, wanted, strict=True))
        ]

    def add(self, rows: slice, dlogits: Tensor, x: Tensor, weight: Tensor) -> None:
        """Take in the gradient of the logits of some rows."""
        dx, dweight, dbias = [*self.sums, None][:3]
        part = None if dbias is None else empty(dbias.shape, dbias)
        if dx is not None:
            matmul(matrix(dx)[rows], dlogits, weight)
        if dweight is not None:
            matmul(dweight, dlogits, matrix(x)[rows], dbias=part, c=dweight, transpose_a=True)
        elif part is not None:
            sums = empty(part.shape, dlogits)
            ops.sum_rows(sums, dlogits)
            ops.cast(part, sums)
        if dbias is not None:
            ops.add(dbias, dbias, part, 1.0)

    def scaled(self, dloss: Tensor) -> list[Tensor | None]:
        """The gradients, given that of the mean loss."""
        factor = dloss.reshape(1)
        gradients: list[Tensor | None] = []
        for total, dtype in zip(self.sums, self.dtypes, strict=True):
            if total is not None:
                gradient = total if total.dtype == dtype else empty(total.shape, total, dtype)
                ops.scale(gradient, total, factor, 1.0 / self.count)
                total = gradient
            gradients.append(total)
        return gradients


def _logits(
    out: Tensor, rows: slice, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> None:
    matmul(out, matrix(x)[rows], weight, bias=bias, transpose_b=True)


def _mean(losses: Tensor, count: int) -> Tensor:
    total, mean = empty((1,), losses), empty((), losses)
    ops.sum_rows(total, losses.reshape(losses.size, 1))
    ops.scale(mean.reshape(1), total, None, 1.0 / count)
    return mean
