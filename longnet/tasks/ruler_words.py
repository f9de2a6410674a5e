"""RULER's counting tasks: the common words of a list, the frequent words of a coded text."""

from __future__ import annotations

import re
from abc import abstractmethod
from bisect import bisect_right
from collections import Counter

import numpy as np

from longnet.tasks.draw import Draw
from longnet.tasks.protocol import Example
from longnet.tasks.text import TextTask, ask_text
from longnet.tasks.words import MADE_UP, letters, made_up

# RULER's limit of 4,096 tokens, under which it asks for less, at four bytes a token.
_FULL_LENGTH = 16_384
_COMMON = 10
_FREQUENT = 3
_CODE_LETTERS = 6
_ZETA_2 = 1.6449340668482264  # pi^2 / 6


class CountingTask(TextTask):
    """A task whose answers are the words that come most often."""

    paper = "Hsieh et al. 2024, arXiv 2404.06654"

    @property
    def shortcut_name(self) -> str:
        """What `shortcut` does, in a few words."""
        return f"counts the words of the last {self.window} bytes of the text"

    def shortcut(self, example: Example) -> np.ndarray:
        """The most frequent words of the end of the text; `guess` where it has too few."""
        prompt = self.decode(example.prompt)
        end = prompt.rindex("\nQuestion:")
        found = Counter(re.findall(r"\b[a-z]{6}\b", prompt[max(0, end - self.window) : end]))
        count = len(example.answers)
        guesses = [word for word, _ in found.most_common(count)]
        guesses += self.guess(Draw(self._key, 0, end), count)[len(guesses) :]
        return self.answered(example, guesses)

    @abstractmethod
    def guess(self, draw: Draw, count: int) -> list[str]:
        """`count` different words, blind."""


class CommonWords(CountingTask):
    """Which ten words stand in a numbered list 30 times, where others stand 3 times?

    Under 16,384 bytes (RULER: 4,096 tokens) 6 times and once. A solved example comes first.
    """

    name = "cwe"
    minimum_length = 2048
    chance = _COMMON / MADE_UP

    def guess(self, draw: Draw, count: int) -> list[str]:
        """Made-up words of three syllables."""
        return [made_up(i) for i in draw.sample(MADE_UP, count).tolist()]

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        full = length >= _FULL_LENGTH
        common, uncommon = (30, 3) if full else (6, 1)
        text, words = self._list(draw, *((30, 10, 3) if full else (10, 3, 1)))
        numbered = " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))
        head = f"{_common_question(text)}{numbered}\n"
        # Behind the question comes as much as behind the solved one, less its last line's end.
        budget = length + 1 - len(head) - len(_common_question("")) - len(numbered) - 1
        others = _others_that_fit(budget, common, uncommon)
        text, words = self._list(draw, others, common, uncommon)
        before = [f"{'' if i == 1 else ' '}{i}. " for i in range(1, _COMMON + 1)]
        prompt = head + _common_question(text)
        return ask_text(prompt, words, [-1] * _COMMON, before=before, words=_COMMON + others)

    def _list(self, draw: Draw, others: int, common: int, uncommon: int) -> tuple[str, list[str]]:
        """A numbered list, and its common words as they come in it first."""
        words = self.guess(draw, _COMMON + others)
        entries = np.repeat(np.arange(len(words)), [common] * _COMMON + [uncommon] * others)
        entries = entries[draw.permutation(entries.size)]
        text = " ".join(f"{i}. {words[w]}" for i, w in enumerate(entries.tolist(), 1))
        _, first = np.unique(entries, return_index=True)
        return text, [words[w] for w in np.argsort(first[:_COMMON], kind="stable").tolist()]


class FrequentWords(CountingTask):
    """Which three words does a coded text have most often, where frequencies fall as rank^-2?

    The first rank goes to dots, which do not count.
    """

    name = "fwe"
    minimum_length = 1024
    chance = _FREQUENT / 26**_CODE_LETTERS

    def guess(self, draw: Draw, count: int) -> list[str]:
        """Words of six random letters."""
        return letters(draw, count, _CODE_LETTERS, "a")

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        words = ["...", *self.guess(draw, length // 50 - 1)]
        squares = np.arange(1, len(words) + 1) ** 2
        sizes = np.array([len(word) + 1 for word in words])

        def counts(total: int) -> np.ndarray:
            return (total / squares / _ZETA_2).astype(np.int64)

        head = (
            "Read the following coded text and track the frequency of each coded word. "
            "Find the three most frequently appeared coded words. "
        )
        tail = (
            "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
            "What are the three most frequently appeared words in the above coded text? "
            "Answer: According to the coded text above, "
            "the three most frequently appeared words are: "
        )
        budget = length + 1 - len(head) - len(tail) - (_CODE_LETTERS + 2) * _FREQUENT
        total = bisect_right(range(length), budget, key=lambda n: int(counts(n) @ sizes)) - 1
        entries = np.repeat(np.arange(len(words)), counts(total))
        entries = entries[draw.permutation(entries.size)]
        text = " ".join(words[i] for i in entries.tolist())
        answers = words[1 : 1 + _FREQUENT]
        return ask_text(head + text + tail, answers, [-1] * _FREQUENT, words=entries.size)


def _common_question(words: str) -> str:
    return (
        "Below is a numbered list of words. In these words, some appear more often than others. "
        f"Memorize the ones that appear most often.\n{words}\n"
        f"Question: What are the {_COMMON} most common words in the above list? "
        f"Answer: The top {_COMMON} words that appear most often in the list are: "
    )


def _others_that_fit(budget: int, common: int, uncommon: int) -> int:
    """Most uncommon words of a list whose text has at most `budget` bytes."""

    def size(others: int) -> int:
        entries = _COMMON * common + others * uncommon
        digits = sum(entries - 10**power + 1 for power in range(len(str(entries))))
        return digits + len(". abcdef ") * entries - 1

    return bisect_right(range(MADE_UP - _COMMON + 1), budget, key=size) - 1
