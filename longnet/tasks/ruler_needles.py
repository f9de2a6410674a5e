"""RULER's eight needle tasks: keys and values that differ in number and kind, three haystacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from longnet.tasks.draw import Draw
from longnet.tasks.haystack import noise, sentences
from longnet.tasks.protocol import Example
from longnet.tasks.text import TextTask, ask_text
from longnet.tasks.words import KEYS, NUMBERS, key, seven_digits, uuids

_DEPTHS = [round(100 * i / 39) for i in range(40)]  # percent, where the published task puts needles


@dataclass(frozen=True)
class Needles:
    """Parameters of one of the tasks, with the published names and defaults.

    Attributes
    ----------
    type_haystack : {'noise', 'essay', 'needle'}
        Repeated sentences, prose, or other needles.
    type_needle_k, type_needle_v : str
        What keys and values are.
    num_needle_k, num_needle_v, num_needle_q : int
        Keys, values of each, and keys asked for.
    """

    type_haystack: Literal["noise", "essay", "needle"]
    type_needle_k: Literal["words", "uuids"] = "words"
    type_needle_v: Literal["numbers", "uuids"] = "numbers"
    num_needle_k: int = 1
    num_needle_v: int = 1
    num_needle_q: int = 1


NEEDLE_TASKS = {
    "niah_single_1": Needles("noise"),
    "niah_single_2": Needles("essay"),
    "niah_single_3": Needles("essay", type_needle_v="uuids"),
    "niah_multikey_1": Needles("essay", num_needle_k=4),
    "niah_multikey_2": Needles("needle"),
    "niah_multikey_3": Needles("needle", type_needle_k="uuids", type_needle_v="uuids"),
    "niah_multivalue": Needles("essay", num_needle_v=4),
    "niah_multiquery": Needles("essay", num_needle_k=4, num_needle_q=4),
}


class NeedleTask(TextTask):
    """Which special magic numbers (or UUIDs) have these keys?

    Parameters
    ----------
    name : str
        One of `NEEDLE_TASKS`.
    """

    paper = "Hsieh et al. 2024, arXiv 2404.06654"

    def __init__(self, name: str) -> None:
        self.name, self.needles = name, NEEDLE_TASKS[name]
        uuid_values = self.needles.type_needle_v == "uuids"
        self._asked = self.needles.num_needle_q * self.needles.num_needle_v
        self.chance = self._asked / (2**122 if uuid_values else NUMBERS)
        self.has_depth = self._asked == 1
        several = self.needles.num_needle_k * self.needles.num_needle_v > 1
        self.minimum_length = 1024 if several or self.needles.type_needle_k == "uuids" else 512

    def guess(self, draw: Draw, count: int) -> list[str]:
        """Values of the task's kind."""
        return (uuids if self.needles.type_needle_v == "uuids" else seven_digits)(draw, count)

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        p = self.needles
        keys = self._keys(draw, p.num_needle_k)
        values = self.guess(draw, p.num_needle_k * p.num_needle_v)
        needles = [self._needle(keys[i // p.num_needle_v], value) for i, value in enumerate(values)]
        queried = draw.sample(p.num_needle_k, p.num_needle_q).tolist()
        head, tail = self._template([keys[i] for i in queried])

        answers = self._asked * (len(values[0]) + 2) - 2  # bytes, with ", " between
        rest = len(head) + len(tail) + answers
        budget = length - rest - sum(len(needle) + 1 for needle in needles)
        hay = self._hay(draw, budget, set(keys))
        wanted = [v for i in queried for v in range(i * p.num_needle_v, (i + 1) * p.num_needle_v)]
        places = self._places(draw, len(hay), len(needles))
        if depth is not None:
            places[wanted[0]] = round(depth * len(hay))
        for needle in sorted(range(len(needles)), key=lambda i: -places[i]):
            hay.insert(places[needle], needles[needle])
        joint = " " if p.type_haystack == "essay" else "\n"
        prompt = f"{head}{joint.join(hay)}{tail}"
        evidence = {i: prompt.index(f": {values[i]}.", len(head)) + 2 for i in wanted}
        if p.num_needle_q == 1:  # several values of one key: as they come in the text
            wanted.sort(key=evidence.__getitem__)
        return ask_text(prompt, [values[i] for i in wanted], [evidence[i] for i in wanted])

    def _needle(self, name: str, value: str) -> str:
        return f"One of the special magic {self.needles.type_needle_v} for {name} is: {value}."

    def _keys(self, draw: Draw, count: int) -> list[str]:
        if self.needles.type_needle_k == "uuids":
            return uuids(draw, count)
        return [key(i) for i in draw.sample(KEYS, count).tolist()]

    def _template(self, queries: list[str]) -> tuple[str, str]:
        """What stands before the haystack and behind it; singular where one thing is asked."""
        one = self._asked == 1
        kind = self.needles.type_needle_v[: -1 if one else None]
        query = queries[0] if len(queries) == 1 else f"{', '.join(queries[:-1])}, and {queries[-1]}"
        some, are = ("A", "is") if one else ("Some", "are")
        head = (
            f"{some} special magic {kind} {are} hidden within the following text. Make sure to "
            f"memorize it. I will quiz you about the {kind} afterwards.\n"
        )
        tail = (
            f"\nWhat {'is' if one else 'are all'} the special magic {kind} for {query} "
            "mentioned in the provided text? "
            f"The special magic {kind} for {query} mentioned in the provided text {are} "
        )
        return head, tail

    def _hay(self, draw: Draw, budget: int, taken: set[str]) -> list[str]:
        """Lines or sentences that have at most `budget` bytes, each with what stands behind it."""
        if self.needles.type_haystack == "noise":
            return noise(budget)
        if self.needles.type_haystack == "essay":
            return sentences(draw, budget)
        hay: list[str] = []
        used = 0
        while True:
            count = 16 + (budget - used) // 80
            if self.needles.type_needle_k == "uuids":
                keys = uuids(draw, count)
            else:
                keys = [key(i) for i in draw.integers(0, KEYS, count).tolist()]
            for name, value in zip(keys, self.guess(draw, count), strict=True):
                line = self._needle(name, value)
                if name in taken:
                    continue
                used += len(line) + 1
                if used > budget:
                    return hay
                hay.append(line)

    def _places(self, draw: Draw, lines: int, count: int) -> list[int]:
        """For each needle the number of the line before which it goes, no two the same."""
        if self.needles.type_haystack == "essay":
            return [lines * _DEPTHS[i] // 100 for i in draw.sample(len(_DEPTHS), count).tolist()]
        return draw.sample(lines, count).tolist()
