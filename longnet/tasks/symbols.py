"""Tasks over a small vocabulary of their own: a sequence in which some tokens are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from longnet.tasks.draw import Draw
from longnet.tasks.protocol import IGNORE, Example, Task


class SymbolTask(Task):
    """A task whose tokens are symbols and whose answers are single ones.

    Attributes
    ----------
    symbols : sequence of str
        The name of each id.
    answer_ids : range
        Ids that can be answers, all equally likely.
    """

    symbols: Sequence[str]
    answer_ids: range

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        """Number of symbols."""
        return len(self.symbols)

    @property
    def chance(self) -> float:  # type: ignore[override]
        """One of the ids that can be answers."""
        return 1 / len(self.answer_ids)

    def blind(self, example: Example, draw: Draw) -> np.ndarray:
        """Any of `answer_ids`."""
        return draw.integers(self.answer_ids.start, self.answer_ids.stop, example.asked.size)

    def decode(self, tokens: ArrayLike) -> str:
        """The symbols' names with spaces between them."""
        return " ".join(self.symbols[i] for i in self._checked(tokens).tolist())


def ask(sequence: np.ndarray, places: np.ndarray, evidence: np.ndarray, **meta: int) -> Example:
    """The example that asks for the symbols at `places` of a sequence.

    Parameters
    ----------
    sequence : numpy.ndarray, (n + 1,) of int
        The example has all but its last symbol as tokens.
    places : numpy.ndarray, (k,) of int
        Positions, rising, from 1 on.
    evidence : numpy.ndarray, (k,) of int
        Where each of them is shown.
    **meta
        Goes into the example.
    """
    sequence = sequence.astype(np.int32)
    targets = np.full(sequence.size - 1, IGNORE, np.int32)
    targets[places - 1] = sequence[places]
    return Example(
        tokens=sequence[:-1],
        targets=targets,
        answers=tuple(sequence[places].tolist()),
        spans=tuple((place - 1, place) for place in places.tolist()),
        evidence=tuple(evidence.tolist()),
        meta=meta,
    )
