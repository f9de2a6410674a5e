"""A model's loss over fixed windows of validation data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from longnet.errors import DataError
from longnet.parallel.batch import part_of_batch

if TYPE_CHECKING:
    from longnet.model import LongNet
    from longnet.parallel import Mesh


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
    accuracy : float or None
        Of a task's examples, their mean score.
    """

    loss: float
    perplexity: float
    bits_per_byte: float | None
    accuracy: float | None = None

    @classmethod
    def of_loss(
        cls, loss: float, bits_per_byte: float | None = None, accuracy: float | None = None
    ) -> Evaluation:
        """The evaluation of a mean loss in nats a token."""
        perplexity = math.exp(loss) if loss < 709 else math.inf
        return cls(loss, perplexity, bits_per_byte, accuracy)


def evaluate(
    model: LongNet,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    num_bytes: int | None = None,
    batch_size: int = 1,
    chunk: int | None = None,
    mesh: Mesh | None = None,
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
        Windows of one forward pass, of all ranks together.
    chunk : int, optional
        Tokens whose logits exist at one time, as `LongNet.loss` takes it.
    mesh : Mesh, optional
        Ranks that share the work, all with the same arguments; every one returns the same.

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
    total = 0.0
    with model.evaluating():
        for first in range(0, len(inputs), batch_size):
            batch = slice(first, first + batch_size)
            total += _nats(model, inputs[batch], targets[batch], chunk, mesh)
    if mesh is not None:
        total = sum(mesh.world.gather_objects(total))
    mean = total / targets.size
    bits = None if num_bytes is None else total / math.log(2) / num_bytes
    return Evaluation.of_loss(mean, bits)


def _nats(
    model: LongNet, inputs: np.ndarray, targets: np.ndarray, chunk: int | None, mesh: Mesh | None
) -> float:
    """The sum of the losses of some windows' tokens, of those that are this rank's."""
    if mesh is None:
        return model.loss(inputs, targets, chunk=chunk).item() * targets.size
    part = part_of_batch(mesh, inputs.shape)
    inputs, targets = (np.ascontiguousarray(array[part]) for array in (inputs, targets))
    if len(inputs) == 0:  # for all ranks that would share them
        return 0.0
    comm = mesh.sequence if mesh.sequence.size > 1 else None
    loss = model.loss(inputs, targets, chunk=chunk, count=targets.size, comm=comm)
    return loss.item() * targets.size
