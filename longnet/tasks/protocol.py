"""What a task is: examples that a seed makes, and how answers to them are scored."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from longnet.arguments import integer, number
from longnet.errors import DataError
from longnet.tasks.draw import Draw

IGNORE = -100  # target of a token after which nothing is asked


@dataclass(frozen=True, eq=False)
class Example:
    """One example.

    A language task asks for the tokens that follow: wherever ``targets[i]`` is asked and token
    ``i + 1`` exists, that token is ``targets[i]`` (teacher forcing). A classification task asks
    once, after the last token, and the target is the label.

    Attributes
    ----------
    tokens : numpy.ndarray, (n,) int32
        What the model reads.
    targets : numpy.ndarray, (n,) int32
        What it is to say after each token; `IGNORE` where nothing is asked.
    answers : tuple of (str or int)
        The answers as people write them, in the order asked.
    spans : tuple of (int, int)
        For each answer, the positions ``start .. stop - 1`` of `targets` that hold it. What is
        asked outside of them (commas between answers, the end of the line) is trained but not
        scored.
    evidence : tuple of int
        For each answer, the position in `tokens` where the text shows it; -1 where no single place
        does.
    meta : mapping
        What else there is to know, as plain numbers and strings; each task says what.
    """

    tokens: np.ndarray
    targets: np.ndarray
    answers: tuple[str | int, ...]
    spans: tuple[tuple[int, int], ...]
    evidence: tuple[int, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> np.ndarray:
        """Positions where something is asked, (k,) int64, rising."""
        return np.flatnonzero(self.targets != IGNORE)

    @property
    def expected(self) -> np.ndarray:
        """The targets at those positions, (k,) int32."""
        return self.targets[self.targets != IGNORE]

    @property
    def prompt(self) -> np.ndarray:
        """The tokens up to the first that is asked about: what generation starts from."""
        return self.tokens[: int(self.asked[0]) + 1]

    @property
    def depths(self) -> tuple[float, ...]:
        """For each answer, the share of the tokens that come before its evidence; NaN without."""
        return tuple(e / self.tokens.size if e >= 0 else float("nan") for e in self.evidence)


class Task(ABC):
    """A task of any length that makes itself.

    Attributes
    ----------
    name : str
        In the registry.
    paper : str
        What it follows.
    vocab_size : int
        Token ids lie in ``0 .. vocab_size - 1``.
    pad : int
        The id that fills up the rows of a batch.
    classes : int or None
        Labels lie in ``0 .. classes - 1`` (always at most `vocab_size`); None for a language task.
    minimum_length : int
        The least `length` that `make` takes.
    chance : float
        Expected score of answers drawn from all that are of the right form, blind to the tokens.
    window : int
        How far back the default shortcut sees.
    has_depth : bool
        Whether `make` can be told where to put the evidence.
    generates : bool
        Whether everything asked follows the prompt without a gap, so that a model can be scored on
        what it generates as well as on what it predicts.
    """

    name: str
    paper: str
    vocab_size: int
    minimum_length: int
    chance: float
    window: int = 64
    pad: int = 0
    classes: int | None = None
    has_depth: bool = False
    generates: bool = True

    def make(self, seed: int, index: int, length: int, *, depth: float | None = None) -> Example:
        """Example number `index` of a seed.

        Parameters
        ----------
        seed, index : int
            0 .. 2^64 - 1. They and `length` (and `depth`) decide every token, on any machine.
        length : int
            Most tokens that the example may have. Texts end within a sentence or so of it.
        depth : float, optional
            Share of the haystack before the evidence, 0 .. 1; drawn if not given.

        Returns
        -------
        Example
            Of ``n <= length`` tokens.

        Raises
        ------
        DataError
            A number is out of range, `length` is under the minimum, or `depth` is given to a task
            that has none.
        TypeError
            A number is none.
        """
        for key, value in (("seed", seed), ("index", index)):
            if not 0 <= integer(key, value) < 2**64:
                raise DataError(f"{key}: {value}, expected 0..2^64-1")
        self.check_length(length)
        if depth is not None:
            if not self.has_depth:
                raise DataError(f"task {self.name}: depth {depth}, expected None: it has no depth")
            if not 0 <= number("depth", depth) <= 1:
                raise DataError(f"task {self.name}: depth {depth}, expected 0..1")
        return self._make(Draw(self._key, seed, index), int(length), depth)

    def check_length(self, length: int) -> None:
        """Raise a `DataError` where `length` is under the task's minimum."""
        if integer("length", length) < self.minimum_length:
            raise DataError(
                f"task {self.name}: length {length}, expected at least {self.minimum_length}"
            )

    def scores(self, example: Example, predicted: ArrayLike) -> np.ndarray:
        """Score each answer.

        Parameters
        ----------
        example : Example
            One of this task's.
        predicted : array_like, (k,) of int
            The ids predicted at ``example.asked``, in that order. A text task also takes what a
            model generated after ``example.prompt``, of any length.

        Returns
        -------
        numpy.ndarray, (answers,) float64
            0 or 1: every token of the answer's span is right.

        Raises
        ------
        DataError
            `predicted` has not one id for each that is asked.
        """
        ids, expected = np.asarray(predicted), example.expected
        if ids.shape != expected.shape:
            raise DataError(
                f"task {self.name}: predictions of shape {ids.shape}, expected {expected.shape}"
            )
        right = np.ones(example.tokens.size, bool)
        right[example.asked] = ids == expected
        return np.array([right[start:stop].all() for start, stop in example.spans], np.float64)

    def score(self, example: Example, predicted: ArrayLike) -> float:
        """Mean of `scores`: the example's score, 0 .. 1."""
        return float(self.scores(example, predicted).mean())

    @property
    def shortcut_name(self) -> str:
        """What `shortcut` does, in a few words."""
        return f"perfect over the last {self.window} tokens, blind beyond"

    def shortcut(self, example: Example) -> np.ndarray:
        """Predict without the long context: (k,) ids as `scores` takes them.

        Answers whose evidence lies in the last `window` tokens are right, others are `blind`. Tasks
        that have a better shortcut than that override this.
        """
        draw = Draw(self._key, 0, int(example.tokens.sum(dtype=np.int64)))
        predicted = np.full(example.tokens.size, IGNORE, np.int64)
        asked = example.asked
        predicted[asked] = self.blind(example, draw)
        for (start, stop), evidence in zip(example.spans, example.evidence, strict=True):
            if evidence > start - self.window:
                predicted[start:stop] = example.targets[start:stop]
        return predicted[asked]

    @abstractmethod
    def blind(self, example: Example, draw: Draw) -> np.ndarray:
        """Predictions of the right form, drawn without a look at the tokens."""

    @abstractmethod
    def decode(self, tokens: ArrayLike) -> str:
        """Tokens as people read them."""

    @abstractmethod
    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        """`make`, its arguments checked."""

    def _checked(self, tokens: ArrayLike) -> np.ndarray:
        """`tokens` as a flat array; a `DataError` where one is none of the vocabulary."""
        ids = np.asarray(tokens).ravel()
        outside = (ids < 0) | (ids >= self.vocab_size)
        if outside.any():
            found = int(ids[outside][0])
            raise DataError(f"task {self.name}: token {found}, expected 0..{self.vocab_size - 1}")
        return ids

    @property
    def _key(self) -> int:
        """The task's half of the generator's key: tasks of one seed have nothing in common."""
        return int.from_bytes(hashlib.blake2b(self.name.encode(), digest_size=8).digest(), "little")


def shortcut_score(task: Task, length: int, *, seed: int = 0, count: int = 100) -> float:
    """Mean score of a task's shortcut on its first `count` examples of a seed."""
    examples = (task.make(seed, index, length) for index in range(count))
    return sum(task.score(example, task.shortcut(example)) for example in examples) / count
