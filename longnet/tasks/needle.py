"""The needle in a haystack: one number in a text about other things."""

from __future__ import annotations

from longnet.tasks.draw import Draw
from longnet.tasks.haystack import sentences
from longnet.tasks.protocol import Example
from longnet.tasks.text import TextTask, ask_text
from longnet.tasks.words import CITIES, NUMBERS, seven_digits


class Needle(TextTask):
    """What is the special magic number of a city?"""

    name = "needle"
    paper = "Kamradt 2023, github.com/gkamradt/LLMTest_NeedleInAHaystack"
    minimum_length = 256
    chance = 1 / NUMBERS
    has_depth = True

    def guess(self, draw: Draw, count: int) -> list[str]:
        """Numbers of seven digits."""
        return seven_digits(draw, count)

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        city, number = draw.choice(CITIES), seven_digits(draw, 1)[0]
        needle = f"The special magic {city} number is: {number}."
        question = f"What is the special magic {city} number?\nThe special magic {city} number is: "
        share = draw.uniform() if depth is None else depth
        prose = sentences(draw, length - len(needle) - len(question) - len(number) - 1)
        place = round(share * len(prose))
        start = sum(len(sentence) + 1 for sentence in prose[:place])
        prompt = f"{' '.join([*prose[:place], needle, *prose[place:]])}\n{question}"
        return ask_text(prompt, [number], [start + needle.index(number)], depth=share, city=city)
