"""Trading arithmetic for memory: what the backward pass computes again.

`checkpoint` stores what a part of a model begins with in place of all that its gradient needs, and
`in_chunks` shows a part that sees rows one by one some of the rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from longnet import random
from longnet._core import Tensor, ops
from longnet.autograd import Variable, attach, is_recording, no_grad, recording
from longnet.finality import leaves_taken
from longnet.functional import reshape
from longnet.functional.buffers import empty, matrix
from longnet.kept import Kept, keeping

# Rows of one chunk: enough to fill a GPU, and few beside a million.
CHUNK_ROWS = 131_072

RowFunction = Callable[[Variable], Variable]  # (M, K) to (M, O), each row by itself


def checkpoint(
    fn: Callable[..., Variable],
    *variables: Variable,
    tail: RowFunction | None = None,
    keep: bool = False,
) -> Variable:
    """Compute ``in_chunks(tail, fn(*variables))`` and store only `variables`.

    The backward pass computes `fn` again, with the same seeds of dropout, and differentiates that;
    before it `tail`, of which one chunk is stored at a time. The bits are those of the same without
    a checkpoint.

    Parameters
    ----------
    fn : callable
        Returns one variable and has no effect but that, so that it may be called twice.
    *variables : Variable
        Its arguments. What `fn` and `tail` reach in another way must be leaves, such as parameters;
        they get their gradients too.
    tail : callable, optional
        As `in_chunks` takes it.
    keep : bool
        Store also what `fn` computes by `longnet.kept.keep`.

    Returns
    -------
    Variable
    """
    recorded = is_recording()
    kept = Kept() if keep and recorded else None
    seeds = random.current().copy()
    with no_grad(), keeping(kept), leaves_taken() as leaves:
        result = fn(*variables)
        tail_seeds = random.current().copy()
        if tail is not None:
            result = in_chunks(tail, result)
    if not recorded:
        return result
    arguments = [(x.data, x.requires_grad) for x in variables]

    def backward(gradient: Tensor) -> list[Tensor | None]:
        again = [Variable(data, requires_grad) for data, requires_grad in arguments]
        if kept is not None:
            kept.replaying = True
        with random.use(seeds), recording(), keeping(kept):
            out = fn(*again)
        if tail is not None:
            with random.use(tail_seeds), recording():
                gradient = _through_chunks(tail, out, gradient)
        if out.requires_grad:
            out.backward(gradient)
        return [x.grad for x in again]

    return attach(result.data, variables, backward, leaves=leaves)


def in_chunks(fn: RowFunction, x: Variable) -> Variable:
    """Apply `fn` to the rows of `x`, `CHUNK_ROWS` of them at a time.

    Parameters
    ----------
    fn : callable
        Maps (M, K) to (M, O) for any M, each row by itself.
    x : Variable (..., K)

    Returns
    -------
    Variable (..., O)
    """
    rows = matrix(x.data)
    if rows.shape[0] <= CHUNK_ROWS:
        y = fn(reshape(x, rows.shape))
        return reshape(y, (*x.shape[:-1], y.shape[-1]))
    chunks = _chunks(rows)
    leaves = [Variable(rows[chunk], x.requires_grad) for chunk in chunks]
    parts, joined = [], _Joined(rows)
    with leaves_taken() as taken:
        for chunk, leaf in zip(chunks, leaves, strict=True):
            part = fn(leaf)
            joined.put(chunk, part.data)
            if is_recording():
                part.data = joined.tensor[chunk]  # the chunk's own memory is given back
                parts.append(part)
    result = joined.tensor.reshape(*x.shape[:-1], joined.tensor.shape[-1])
    if not is_recording():
        return Variable(result)

    def backward(gradient: Tensor) -> list[Tensor | None]:
        dx, gradient = _Joined(rows), matrix(gradient)
        for chunk, leaf, part in zip(chunks, leaves, parts, strict=True):
            part.backward(gradient[chunk])
            dx.put(chunk, leaf.grad)
        return [dx.tensor.reshape(*x.shape) if x.requires_grad else None]

    return attach(result, [x], backward, leaves=taken)


def _through_chunks(fn: RowFunction, x: Variable, gradient: Tensor) -> Tensor:
    """The gradient of `x`, given that of ``in_chunks(fn, x)``, each chunk computed here."""
    rows, gradient = matrix(x.data), matrix(gradient)
    dx = _Joined(rows)
    for chunk in _chunks(rows):
        leaf = Variable(rows[chunk], requires_grad=True)
        fn(leaf).backward(gradient[chunk])
        dx.put(chunk, leaf.grad)
    return dx.tensor.reshape(*x.shape)


def _chunks(rows: Tensor) -> list[slice]:
    begins = range(0, max(1, rows.shape[0]), CHUNK_ROWS)  # no rows are a chunk too
    return [slice(begin, begin + CHUNK_ROWS) for begin in begins]


class _Joined:
    """Rows as their chunks come in; `tensor` is their memory, or the chunk itself if it is all."""

    def __init__(self, rows: Tensor) -> None:
        self._count = rows.shape[0]
        self.tensor: Tensor | None = None

    def put(self, chunk: slice, part: Tensor) -> None:
        if part.shape[0] == self._count:
            self.tensor = part
            return
        if self.tensor is None:
            self.tensor = empty((self._count, part.shape[-1]), part)
        ops.cast(self.tensor[chunk], part)
