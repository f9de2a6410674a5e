"""A model's loss over fixed windows of validation data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from longnet.autograd import no_grad
from longnet.errors import DataError

if TYPE_CHECKING:
    from longnet.model import LongNet


class Evaluation(NamedTuple):
    """What a model makes of some text.

    Attributes
    ----------
    loss : float
        Mean negative log likelihood in nats per token.
    perplexity : float
        ``exp(loss)``, infinite where that overflows.
    bits_per_byte : float or None
        Total bits over the bytes of the text; None where those are not known.
    """

    loss: float
    perplexity: float
    bits_per_byte: float | None


def evaluate(
    model: LongNet,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    num_bytes: int | None = None,
    batch_size: int = 1,
    chunk: int | None = None,
) -> Evaluation:
    """Score `targets` with a model, without dropout and without a gradient.

    Parameters
    ----------
    model : LongNet
        Left in the mode (training or not) in which it was.
    inputs, targets : numpy.ndarray, (W, N) int32
        W windows, as `longnet.data.validation_windows` gives them.
    num_bytes : int, optional
        Bytes of the text that `targets` stand for.
    batch_size : int
        Windows of one forward pass.
    chunk : int, optional
        Tokens whose logits exist at one time, as `LongNet.loss` takes it.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        There is no window, the shapes differ, or a number is below 1.
    """
    if inputs.shape != targets.shape or inputs.ndim != 2 or not inputs.size:
        raise DataError(
            f"windows: inputs {inputs.shape} and targets {targets.shape}, "
            "expected one shape (W, N) of at least (1, 1)"
        )
    for name, value in (("num_bytes", num_bytes), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise DataError(f"{name}: {value}, expected at least 1")
    training = model.training
    model.eval()
    total = 0.0
    try:
        with no_grad():
            for first in range(0, len(inputs), batch_size):
                rows = slice(first, first + batch_size)
                loss = model.loss(inputs[rows], targets[rows], chunk=chunk)
                total += loss.item() * targets[rows].size
    finally:
        model.train(training)
    mean = total / targets.size
    bits = None if num_bytes is None else total / math.log(2) / num_bytes
    return Evaluation(mean, math.exp(mean) if mean < 709 else math.inf, bits)
