"""A model on a task: scores over lengths and depths, each beside what needs no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from longnet.errors import ConfigError, DataError
from longnet.evaluate.metrics import standard_error
from longnet.evaluate.predictions import predict
from longnet.tasks import Example, Task, collate

if TYPE_CHECKING:
    from longnet.model import LongNet
    from longnet.parallel import Mesh

NUM_BINS = 10
# Tokens of one forward pass, unless one example has more.
_PASS_TOKENS = {"cpu": 1 << 13, "cuda": 1 << 18}
_HELD_OUT = 1 << 63


def held_out(seed: int) -> int:
    """The seed of examples that no training draws: its seeds lie below 2^63.

    Raises
    ------
    DataError
        `seed` is not 0 to 2^63 - 1.
    """
    if not 0 <= seed < _HELD_OUT:
        raise DataError(f"seed: found {seed}, expected 0 to 2^63 - 1")
    return _HELD_OUT + seed


def pass_size(device: str, length: int) -> int:
    """How many sequences of a length go through a model at one time, at least one."""
    return max(1, _PASS_TOKENS[device.partition(":")[0]] // length)


@dataclass(frozen=True)
class Bin:
    """Answers whose evidence lies in a part of the tokens.

    Attributes
    ----------
    low, high : float
        Share of the tokens before it, from `low` to below `high`.
    answers : int
        How many there are.
    score : float
        The share of them that is right.
    """

    low: float
    high: float
    answers: int
    score: float


@dataclass(frozen=True)
class Cell:
    """A model's score on examples of one length and one depth.

    Attributes
    ----------
    task : str
    length : int
        Most tokens of an example.
    depth : float or None
        Where the evidence was put; None: the task draws it.
    examples : int
    score : float
        Mean score of an example; an answer is right where all its tokens are the most likely ones.
    standard_error : float
        Of `score`: the deviation between examples over the root of their number.
    chance : float
        What answers of the right form score, drawn blindly.
    shortcut : float
        What `shortcut_name` scores on the same examples.
    shortcut_name : str
    loss : float
        Mean loss of what is asked, in nats a token.
    tokens : int
        Of all examples, as long as they are.
    bins : tuple of Bin
        Scores by where the evidence lies; empty where that is not known, or `depth` says it.
    """

    task: str
    length: int
    depth: float | None
    examples: int
    score: float
    standard_error: float
    chance: float
    shortcut: float
    shortcut_name: str
    loss: float
    tokens: int
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return asdict(self)


def check_vocabulary(task: Task, vocab_size: int) -> None:
    """Refuse a task whose tokens a model does not have.

    Raises
    ------
    ConfigError
        The vocabulary is too small.
    """
    if task.vocab_size > vocab_size:
        raise ConfigError(
            f"model.vocab_size: found {vocab_size}, expected at least {task.vocab_size} "
            f"for task {task.name}"
        )


def evaluate_task(
    model: LongNet,
    task: Task,
    lengths: Sequence[int],
    depths: Sequence[float] | None = None,
    *,
    examples: int = 100,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[Cell]:
    """Score a model on held-out examples, by teacher forcing in one pass over each batch.

    Parameters
    ----------
    model : LongNet
        Left in the mode (training or not) in which it was.
    task : Task
    lengths : sequence of int
        Also beyond those of the training.
    depths : sequence of float, optional
        0 to 1, of tasks that have a depth.
    examples : int
        Of each length and depth.
    seed : int
        Of the examples, which are never those of a training (`held_out`).
    device : str
        Where the model lies.

    Yields
    ------
    Cell
        By length, then depth, as soon as each is done.

    Raises
    ------
    ConfigError
        The model's vocabulary is too small.
    DataError
        A length is under the task's minimum, a depth is not 0 to 1 or the task has none, or there
        is no example to make.
    """
    check_vocabulary(task, model.config.vocab_size)
    if examples < 1:
        raise DataError(f"examples: found {examples}, expected at least 1")
    for length in lengths:
        task.check_length(length)
    for wanted in depths or ():  # before hours are spent on the first length
        task.make(held_out(seed), 0, min(lengths), depth=wanted)
    for length in lengths:
        for depth in depths or (None,):
            made = (task.make(held_out(seed), i, length, depth=depth) for i in range(examples))
            yield _score_cell(model, task, length, depth, list(made), device)


def _score_cell(
    model: LongNet,
    task: Task,
    length: int,
    depth: float | None,
    examples: list[Example],
    device: str,
) -> Cell:
    scores, nats, bins = score_examples(model, task, examples, length, pass_size(device, length))
    count = len(examples)
    return Cell(
        task=task.name,
        length=length,
        depth=depth,
        examples=count,
        score=float(scores.mean()),
        standard_error=standard_error(scores.tolist()),
        chance=task.chance,
        shortcut=sum(task.score(e, task.shortcut(e)) for e in examples) / count,
        shortcut_name=task.shortcut_name,
        loss=float(nats.mean()),
        tokens=sum(example.tokens.size for example in examples),
        bins=bins if depth is None else (),
    )


def score_examples(
    model: LongNet,
    task: Task,
    examples: Sequence[Example],
    length: int,
    batch_size: int,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[Bin, ...]]:
    """Score examples of at most `length` tokens.

    Parameters
    ----------
    model : LongNet
        Left in the mode (training or not) in which it was.
    task : Task
    examples : sequence of Example
    length, batch_size : int
        Of the batches that go through the model.
    mesh : Mesh, optional
        Ranks that share the work, all with the same arguments; every one returns the same.

    Returns
    -------
    scores : numpy.ndarray, (examples,) float64
    nats : numpy.ndarray, (k,) float64
        Losses of all tokens that are asked.
    bins : tuple of Bin
        Scores by where the evidence lies.
    """
    scores, nats, depths, answers = [], [], [], []
    for begin in range(0, len(examples), batch_size):
        batch = examples[begin : begin + batch_size]
        predicted = predict(model, *collate(batch, length, task.pad), mesh=mesh)
        ends = np.cumsum([example.asked.size for example in batch])
        for example, ids in zip(batch, np.split(predicted.ids, ends[:-1]), strict=True):
            right = task.scores(example, ids)
            scores.append(right.mean())
            answers.append(right)
            depths.append(example.depths)
        nats.append(predicted.nats)
    bins = _binned(np.concatenate(depths), np.concatenate(answers))
    return np.array(scores), np.concatenate(nats), bins


def _binned(depths: np.ndarray, scores: np.ndarray) -> tuple[Bin, ...]:
    known = ~np.isnan(depths)
    which = np.minimum((depths[known] * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(which, minlength=NUM_BINS)
    sums = np.bincount(which, scores[known], minlength=NUM_BINS)
    return tuple(
        Bin(i / NUM_BINS, (i + 1) / NUM_BINS, int(counts[i]), float(sums[i] / counts[i]))
        for i in range(NUM_BINS)
        if counts[i]
    )
