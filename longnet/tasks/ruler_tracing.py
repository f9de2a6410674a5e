"""RULER's variable tracing: all names of one value, along a chain of assignments."""

from __future__ import annotations

from itertools import pairwise

from longnet.tasks.draw import Draw
from longnet.tasks.haystack import NOISE, noise
from longnet.tasks.protocol import Example
from longnet.tasks.text import TextTask, ask_text
from longnet.tasks.words import letters

_HOPS = 4
_NAME_LETTERS = 5
_SHOT_LETTERS = 3
_SHOT_LINES = _HOPS + 1  # of noise in the solved example: the least that has a place for each step


class VariableTracing(TextTask):
    """Which variables have this value?

    One chain: a variable is assigned a number, and four times another one is assigned the last.
    A solved example comes first.
    """

    name = "vt"
    paper = "Hsieh et al. 2024, arXiv 2404.06654"
    minimum_length = 2560
    chance = (_HOPS + 1) / 26**_NAME_LETTERS

    def guess(self, draw: Draw, count: int) -> list[str]:
        """Names of five capitals."""
        return letters(draw, count, _NAME_LETTERS, "A")

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        solved, names, _ = _question(draw, _SHOT_LETTERS, [NOISE] * _SHOT_LINES)
        shot = f"{solved}{' '.join(names)}\n\n"
        empty = _question(draw, _NAME_LETTERS, [])[0]
        answers = (_NAME_LETTERS + 1) * (_HOPS + 1) - 1
        hay = noise(length - len(shot) - len(empty) - answers - 1)
        question, names, shown = _question(draw, _NAME_LETTERS, hay)
        return ask_text(
            shot + question,
            names,
            [len(shot) + place for place in shown],
            before=["", *[" "] * _HOPS],
            hops=_HOPS,
        )


def _question(draw: Draw, size: int, hay: list[str]) -> tuple[str, list[str], list[int]]:
    """A question in `hay`, the names that answer it and where it assigns them."""
    names = letters(draw, _HOPS + 1, size, "A")
    value = draw.integer(10_000, 99_999)
    chain = [f"VAR {names[0]} = {value}"]
    chain += [f"VAR {new} = VAR {old}" for old, new in pairwise(names)]
    places = sorted(draw.sample(len(hay), len(chain)).tolist()) if hay else [0] * len(chain)
    lines = list(hay)
    for place, line in reversed(list(zip(places, chain, strict=True))):
        lines.insert(place, line)
    text = (
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
        + "\n".join(lines)
        + f"\nQuestion: Find all variables that are assigned the value {value} in the text above. "
        "Answer: According to the chain(s) of variable assignment in the text above, "
        f"{len(names)} variables are assigned the value {value}, they are: "
    )
    return text, names, [text.index(f"VAR {name} = ") + len("VAR ") for name in names]
