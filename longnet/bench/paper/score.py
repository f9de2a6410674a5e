"""How well a model predicts a text that is cut into pieces of some length, and after prompts."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from longnet.bench.paper.blockwise import blockwise
from longnet.evaluate.perplexity import evaluate
from longnet.model import IGNORE_INDEX, LongNet


def nats_by_window(
    model: LongNet, inputs: np.ndarray, targets: np.ndarray, length: int, trained: int | None
) -> list[float]:
    """Mean loss of each window when it is read in pieces.

    Every token of every window is scored whatever the length is, so that lengths and models are
    compared on the same text.

    Parameters
    ----------
    model : LongNet
    inputs, targets : numpy.ndarray, (W, N) int32
    length : int
        Of a piece, a divisor of N.
    trained : int or None
        Pieces that are longer are read blockwise; None: as a whole.

    Returns
    -------
    list of float
        W losses in nats a token.
    """
    as_read = nullcontext() if trained is None or length <= trained else blockwise(model, trained)
    with as_read:
        return [
            evaluate(
                model, x.reshape(-1, length), y.reshape(-1, length), batch_size=x.size // length
            ).loss
            for x, y in zip(inputs, targets, strict=True)
        ]


def nats_after_prompts(
    model: LongNet, inputs: np.ndarray, targets: np.ndarray, length: int, scored: int
) -> list[float]:
    """Mean loss of the last tokens of each window when only its end is read.

    Parameters
    ----------
    model : LongNet
    inputs, targets : numpy.ndarray, (W, N) int32
    length : int
        Tokens that are read: a prompt, and the tokens that are scored.
    scored : int

    Returns
    -------
    list of float
        W losses in nats a token.
    """
    inputs = np.ascontiguousarray(inputs[:, -length:])
    targets = targets[:, -length:].copy()
    targets[:, :-scored] = IGNORE_INDEX
    with model.evaluating():
        return [
            model.loss(inputs[i : i + 1], targets[i : i + 1]).item() for i in range(len(inputs))
        ]
