"""ListOps: the value of a nested list of operations on digits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from longnet.tasks.classification import ClassificationTask, ask_label
from longnet.tasks.draw import Draw
from longnet.tasks.protocol import Example

OPERATORS = ("MIN", "MAX", "MED", "SM")  # SM is the sum modulo 10
SYMBOLS = (*"0123456789", *(f"[{name}" for name in OPERATORS), "]", "_")
_FIRST_OPERATOR, _END, _PAD = 10, 14, 15
_MAX_DEPTH = 10
_MAX_ARGUMENTS = 10
_PUBLISHED_LENGTH = 2000
_LIKELIEST = (0, 9, 4, 0)  # value of each operator's lists that is the most frequent


class _Level(NamedTuple):
    """The nodes of one depth, from left to right."""

    is_list: np.ndarray
    digit: np.ndarray  # of those that are digits
    operator: np.ndarray  # of those that are lists, in order
    arity: np.ndarray  # likewise


class ListOps(ClassificationTask):
    """What is the value of this list?

    Each argument is a list with probability 1/4 while the depth allows it and a digit otherwise; a
    list has 2 to 10 arguments. Trees are drawn until one has more than a quarter of `length` tokens
    and less than `length`: at 2,000 these are the published 500 to 2,000.
    """

    name = "listops"
    paper = "Nangia and Bowman 2018, arXiv 1804.06028; Tay et al. 2021, arXiv 2011.04006"
    classes = 10
    vocab_size = len(SYMBOLS)
    pad = _PAD
    minimum_length = 32
    shortcut_name = "the likeliest value, given the outermost operator"

    def shortcut(self, example: Example) -> np.ndarray:
        """The likeliest value, given the first token."""
        return np.array([_LIKELIEST[int(example.tokens[0]) - _FIRST_OPERATOR]])

    def decode(self, tokens: ArrayLike) -> str:
        """The list as the papers write it, without their round parentheses."""
        return " ".join(SYMBOLS[i] for i in self._checked(tokens).tolist())

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        limit = max_depth(length)
        while True:
            levels = _tree(draw, limit, length)
            if levels is not None and 4 * sum(_tokens_of(level) for level in levels) > length:
                break
        tokens, label = _written(levels)
        return ask_label(tokens, label, depth=len(levels))


def max_depth(length: int) -> int:
    """Depth that trees may have: the published 10, and more where lengths above 2,000 ask for it.

    Trees grow by a factor of 1.5 a level on average.
    """
    depth = _MAX_DEPTH
    while _PUBLISHED_LENGTH * 3 ** (depth - _MAX_DEPTH) < length * 2 ** (depth - _MAX_DEPTH):
        depth += 1
    return depth


def _tree(draw: Draw, limit: int, length: int) -> list[_Level] | None:
    """The levels of one random tree, or None once it has `length` tokens."""
    levels: list[_Level] = []
    nodes, tokens = 1, 0
    while nodes:
        words = draw.words(nodes)
        is_list = (words & np.uint64(3)) == 0
        if len(levels) + 1 == limit:
            is_list[:] = False
        rest = (words >> np.uint64(2)).astype(np.int64)
        lists = rest[is_list]
        level = _Level(
            is_list, rest[~is_list] % 10, lists & 3, 2 + (lists >> 2) % (_MAX_ARGUMENTS - 1)
        )
        levels.append(level)
        tokens += _tokens_of(level)
        nodes = int(level.arity.sum())
        if tokens + nodes >= length:
            return None
    return levels


def _tokens_of(level: _Level) -> int:
    return level.digit.size + 2 * level.operator.size


def _written(levels: list[_Level]) -> tuple[np.ndarray, int]:
    """A tree's tokens and its value."""
    # Of each level's nodes, deepest first.
    sizes: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for level in reversed(levels):
        size = np.ones(level.is_list.size, np.int64)
        value = np.empty(level.is_list.size, np.int64)
        value[~level.is_list] = level.digit
        if level.operator.size:
            starts = np.cumsum(level.arity) - level.arity
            size[level.is_list] = 2 + np.add.reduceat(sizes[-1], starts)
            value[level.is_list] = _apply(level, values[-1], starts)
        sizes.append(size)
        values.append(value)

    tokens = np.empty(int(sizes[-1][0]), np.int32)
    places = np.zeros(1, np.int64)
    for depth, level in enumerate(levels):
        size = sizes[-1 - depth]
        tokens[places[~level.is_list]] = level.digit
        lists = places[level.is_list]
        tokens[lists] = _FIRST_OPERATOR + level.operator
        tokens[lists + size[level.is_list] - 1] = _END
        if lists.size:
            before = np.cumsum(sizes[-2 - depth]) - sizes[-2 - depth]
            starts = np.cumsum(level.arity) - level.arity
            places = np.repeat(lists + 1 - before[starts], level.arity) + before
    return tokens, int(values[-1][0])


def _apply(level: _Level, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Values of a level's lists, given those of the arguments and where each list's begin."""
    group = np.repeat(np.arange(starts.size), level.arity)
    ordered = np.sort(group * 10 + values) % 10
    ends = starts + level.arity - 1
    # For an even number of arguments the median is the mean of the middle two, rounded down.
    median = (ordered[(starts + ends) // 2] + ordered[(starts + ends + 1) // 2]) // 2
    total = np.add.reduceat(values, starts) % 10
    return np.choose(level.operator, [ordered[starts], ordered[ends], median, total])
