"""What a model says at the positions that are asked, by one pass over a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from longnet import functional as F
from longnet.autograd import Variable
from longnet.errors import DataError
from longnet.functional.buffers import matrix
from longnet.parallel.batch import part_of_batch
from longnet.tasks import IGNORE

if TYPE_CHECKING:
    from longnet.model import LongNet
    from longnet.parallel import Mesh

_CHUNK = 4096  # positions whose logits exist at one time


class Predictions(NamedTuple):
    """Predictions of the k targets of a batch that count, row after row.

    Attributes
    ----------
    ids : numpy.ndarray, (k,) int32
        The most likely tokens.
    nats : numpy.ndarray, (k,) float64
        Losses of the targets, ``-log p(target)``.
    """

    ids: np.ndarray
    nats: np.ndarray


def predict(
    model: LongNet, inputs: np.ndarray, targets: np.ndarray, *, mesh: Mesh | None = None
) -> Predictions:
    """Predict the targets that count, each after the true tokens before it (teacher forcing).

    Logits are computed at these positions alone.

    Parameters
    ----------
    model : LongNet
        Left in the mode (training or not) in which it was.
    inputs, targets : numpy.ndarray, (B, N) int32
        `longnet.tasks.IGNORE` where nothing is asked.
    mesh : Mesh, optional
        Ranks that share the work, all with the same arguments; every one returns the same.

    Raises
    ------
    DataError
        The shapes differ, nothing is asked, or a target is not in the model's vocabulary.
    """
    if inputs.shape != targets.shape or inputs.ndim != 2:
        raise DataError(f"targets: shape {targets.shape}, expected {inputs.shape}, (B, N)")
    expected = targets[targets != IGNORE]
    vocab_size = model.config.vocab_size
    if not expected.size:
        raise DataError(f"targets: all {IGNORE}, expected one that counts")
    if expected.min() < 0 or expected.max() >= vocab_size:
        found = expected[(expected < 0) | (expected >= vocab_size)][0]
        raise DataError(f"targets: token id {found}, expected 0..{vocab_size - 1}")
    part = part_of_batch(mesh, inputs.shape)
    places = np.flatnonzero(targets[part] != IGNORE)
    with model.evaluating():
        found = _predict(model, inputs[part], targets[part], places, mesh)
    if mesh is None:
        return found
    places = np.arange(inputs.size).reshape(inputs.shape)[part].ravel()[places]
    parts = mesh.world.gather_objects((places, *found))
    places, ids, nats = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(places)
    return Predictions(ids[order], nats[order])


def _predict(
    model: LongNet,
    inputs: np.ndarray,
    targets: np.ndarray,
    places: np.ndarray,
    mesh: Mesh | None,
) -> Predictions:
    """Predictions at some places, counted row after row, of a rank's part of a batch."""
    ids, nats = np.empty(places.size, np.int32), np.empty(places.size, np.float64)
    if not len(inputs):  # for all ranks that would share them
        return Predictions(ids, nats)
    comm = mesh.sequence if mesh is not None and mesh.sequence.size > 1 else None
    hidden = model.hidden(np.ascontiguousarray(inputs), comm=comm)
    rows = Variable(matrix(hidden.data))
    output = model.output.in_dtype(hidden.dtype)
    for begin in range(0, places.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        picked = F.embedding(places[part], rows)  # those rows of the hidden states
        logits = F.linear(picked, output).data.to("cpu").numpy().astype(np.float64)
        ids[part] = logits.argmax(1)
        nats[part] = _losses(logits, targets.ravel()[places[part]])
    return Predictions(ids, nats)


def _losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """``-log softmax(logits)[target]`` of each row, (k,) float64."""
    logits = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits).sum(axis=1))
    return log_sum - np.take_along_axis(logits, targets[:, None].astype(np.int64), 1)[:, 0]
