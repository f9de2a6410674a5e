"""Recall of what stood beside a token before: induction heads and associative recall."""

from __future__ import annotations

import numpy as np

from longnet.tasks.draw import Draw
from longnet.tasks.protocol import Example
from longnet.tasks.symbols import SymbolTask, ask


class InductionHeads(SymbolTask):
    """Which symbol followed this trigger the first time?

    Random symbols, among which stand up to 16 different triggers, each once in the first three
    quarters and once in the last: what follows it there is what followed it before. A layer of
    attention alone cannot tell what stood before a token, two can.
    """

    name = "induction_heads"
    paper = "Fu et al. 2023, arXiv 2212.14052; Gu and Dao 2023, arXiv 2312.00752"
    minimum_length = 16
    generates = False
    answer_ids = range(16)
    most_triggers = 16
    symbols = (*(f"s{i}" for i in range(16)), *(f"T{i}" for i in range(most_triggers)))

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        count = min(self.most_triggers, length // 16)
        sequence = draw.integers(0, len(self.answer_ids), length + 1)
        border = length * 3 // 4
        shown = draw.spaced(border, count, 2)
        queried = border + draw.spaced(length + 1 - border, count, 2)
        triggers = len(self.answer_ids) + draw.sample(self.most_triggers, count)
        order = draw.permutation(count)
        sequence[shown] = triggers
        sequence[queried] = triggers[order]
        sequence[queried + 1] = sequence[shown[order] + 1]
        return ask(sequence, queried + 1, shown[order] + 1, triggers=count)


class AssociativeRecall(SymbolTask):
    """Which value did this key have?

    Up to 64 pairs of a key and its value, then blanks among which each key stands once more, its
    value behind it.
    """

    name = "associative_recall"
    paper = "Ba et al. 2016, arXiv 1610.06258; Arora et al. 2023, arXiv 2312.04927"
    minimum_length = 8
    generates = False
    most_pairs = 64
    answer_ids = range(1 + most_pairs, 1 + 2 * most_pairs)
    symbols = (
        "_",
        *(f"k{i}" for i in range(most_pairs)),
        *(f"v{i}" for i in range(most_pairs)),
    )

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        count = min(self.most_pairs, length // 8)
        sequence = np.zeros(length + 1, np.int64)
        keys = 1 + draw.sample(self.most_pairs, count)
        values = draw.integers(self.answer_ids.start, self.answer_ids.stop, count)
        sequence[: 2 * count : 2] = keys
        sequence[1 : 2 * count : 2] = values
        order = draw.permutation(count)
        queried = 2 * count + draw.spaced(length + 1 - 2 * count, count, 2)
        sequence[queried] = keys[order]
        sequence[queried + 1] = values[order]
        return ask(sequence, queried + 1, 2 * order + 1, pairs=count)
