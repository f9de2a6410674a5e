"""Blockwise causal attention: a baseline on texts longer than those it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from longnet._core import Tensor, ops
from longnet.autograd import Variable
from longnet.errors import ShapeError
from longnet.functional.buffers import empty
from longnet.model import LongNet


@contextmanager
def blockwise(model: LongNet, length: int) -> Iterator[None]:
    """Let the attention of a model see as far as in its training, however long the text is.

    The text is cut into blocks of ``length / 2`` rows, and a query sees the keys of its own block
    and of the one before it (arXiv 2212.10554): never farther than `length`, and half as far at
    least but for the first block. Inside the two blocks attention is the model's own. For
    evaluation: there is no gradient.

    Parameters
    ----------
    model : LongNet
        Whose mixers attend as `longnet.mixers.attention.Attention`.
    length : int
        Of the training, even; texts are as long or longer, a multiple of half of it.
    """
    mixers: list[Any] = [block.mixer for block in model.blocks]
    for mixer in mixers:
        mixer.attend = partial(_attend, mixer.attend, length // 2)
    try:
        yield
    finally:
        for mixer in mixers:
            del mixer.attend  # the class has its own


def _attend(
    attend: Callable[..., Variable],
    half: int,
    q: Variable,
    k: Variable,
    v: Variable,
    total: int,
    *others: object,
    **options: object,
) -> Variable:
    """Attention in windows of two blocks, each a batch item of its own, of which the second block
    counts, and of the first window both."""
    if total < 2 * half or total % half:
        raise ShapeError(f"blockwise: found {total} rows, expected a multiple of {half} above it")
    count = total // half - 1  # windows of a sequence
    windows = [Variable(_windows(x.data, half, count)) for x in (q, k, v)]
    found = attend(*windows, 2 * half, *others, **options).data
    B, _, H, D = q.shape
    out = empty((B, total, H, D), found)
    for b in range(B):
        ops.cast(out[b, :half], found[b * count, :half])
        for i in range(count):
            ops.cast(out[b, (i + 1) * half : (i + 2) * half], found[b * count + i, half:])
    return Variable(out)


def _windows(x: Tensor, half: int, count: int) -> Tensor:
    B, _, H, D = x.shape
    out = empty((B * count, 2 * half, H, D), x)
    for b in range(B):
        for i in range(count):
            ops.cast(out[b * count + i], x[b, i * half : (i + 2) * half])
    return out
