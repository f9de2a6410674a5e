"""Selective copying: what stood among blanks, in its order."""

from __future__ import annotations

import numpy as np

from longnet.tasks.draw import Draw
from longnet.tasks.protocol import Example
from longnet.tasks.symbols import SymbolTask, ask

_COUNT = 16


class SelectiveCopying(SymbolTask):
    """Say the 16 symbols that stand at random places among blanks, after a marker."""

    name = "selective_copying"
    paper = "Gu and Dao 2023, arXiv 2312.00752"
    minimum_length = 2 * _COUNT
    answer_ids = range(1, 15)
    symbols = ("_", *(f"s{i}" for i in answer_ids), "copy")

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        marker = length - _COUNT
        shown = draw.spaced(marker, _COUNT, 1)
        copied = draw.integers(self.answer_ids.start, self.answer_ids.stop, _COUNT)
        sequence = np.zeros(length + 1, np.int64)
        sequence[shown] = copied
        sequence[marker] = self.symbols.index("copy")
        sequence[marker + 1 :] = copied
        return ask(sequence, np.arange(marker + 1, length + 1), shown)
