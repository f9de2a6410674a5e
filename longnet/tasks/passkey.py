"""The passkey: a number among sentences that say nothing."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike

from longnet.tasks.draw import Draw
from longnet.tasks.haystack import NOISE
from longnet.tasks.protocol import Example
from longnet.tasks.text import TextTask, ask_text

_HEAD = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
_TAIL = "What is the pass key? The pass key is "
_NUMBERS = 50_000


class Passkey(TextTask):
    """What is the pass key?"""

    name = "passkey"
    paper = "Mohtashami and Jaggi 2023, arXiv 2305.16300"
    minimum_length = 320
    chance = 1 / _NUMBERS
    has_depth = True

    def scores(self, example: Example, predicted: ArrayLike) -> np.ndarray:
        """Score the number: 1 where the first one in the predicted text is it."""
        number = re.search(r"\d+", self.decode(predicted))
        return np.array([number is not None and number[0] == example.answers[0]], np.float64)

    def guess(self, draw: Draw, count: int) -> list[str]:
        """Numbers from 1 to 50,000."""
        return [str(1 + n) for n in draw.sample(_NUMBERS, count).tolist()]

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        number = self.guess(draw, 1)[0]
        line = f"The pass key is {number}. Remember it. {number} is the pass key."
        # length + 1 bytes in all: five ends of lines among them.
        filler = length + 1 - len(_HEAD) - len(line) - len(_TAIL) - len(number) - 5
        share = draw.uniform() if depth is None else depth
        before = round(share * filler)
        noise = " ".join([NOISE] * (1 + filler // len(NOISE)))
        head = f"{_HEAD}\n{noise[:before]}\n"
        prompt = f"{head}{line}\n{noise[: filler - before]}\n{_TAIL}"
        evidence = len(head) + line.index(number)
        return ask_text(prompt, [number], [evidence], depth=share)
