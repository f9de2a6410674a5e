"""ListOps: the grammar's distributions against a sampler written as the papers state it."""

import random
from collections import Counter

import numpy as np
import pytest

from longnet import tasks
from longnet.tasks.draw import Draw
from longnet.tasks.listops import _tree, max_depth

OPERATORS = {
    "MIN": min,
    "MAX": max,
    "MED": lambda values: int(np.median(values)),
    "SM": lambda values: sum(values) % 10,
}


def value(text):
    """What a list is worth, by a stack."""
    stack = [[]]
    for word in text.split():
        if word.startswith("["):
            stack.append([word[1:]])
        elif word == "]":
            operator, *arguments = stack.pop()
            stack[-1].append(OPERATORS[operator](arguments))
        else:
            stack[-1].append(int(word))
    assert len(stack) == len(stack[0]) == 1
    return stack[0][0]


def published(rng, depth=1, limit=10):
    """A random tree as text: a list with probability 1/4, of 2 to 10 arguments."""
    if depth == limit or rng.random() > 0.25:
        return [str(rng.randrange(10))]
    words = [f"[{rng.choice(list(OPERATORS))}"]
    for _ in range(rng.randint(2, 10)):
        words += published(rng, depth + 1, limit)
    return [*words, "]"]


@pytest.fixture(scope="module")
def examples():
    task = tasks.get("listops")
    return [task.make(9, i, 2000) for i in range(400)]


@pytest.mark.parametrize("length", [32, 100, 2000, 5000])
def test_parsing_solves_it(length):
    task = tasks.get("listops")
    for index in range(25):
        example = task.make(1, index, length)
        assert length / 4 < example.tokens.size < length
        assert task.score(example, [value(task.decode(example.tokens))]) == 1


def test_lengths_and_depth_are_the_published_ones(examples):
    sizes = [example.tokens.size for example in examples]
    assert min(sizes) > 500
    assert max(sizes) < 2000
    assert {example.meta["depth"] for example in examples} <= {8, 9, 10}


def test_lists_are_distributed_as_published(examples):
    task = tasks.get("listops")
    rng = random.Random(5)
    theirs = []
    while len(theirs) < 60:
        words = published(rng)
        if 500 < len(words) < 2000:
            theirs.append(words)
    ours = [task.decode(example.tokens).split() for example in examples]
    for measure, spread in [
        (len, 420),  # tokens
        (lambda words: words.count("]") / len(words), 0.015),  # lists among them
        (lambda words: sum(w.startswith("[MED") for w in words) / words.count("]"), 0.07),
    ]:
        a, b = np.mean([measure(w) for w in ours]), np.mean([measure(w) for w in theirs])
        assert abs(a - b) < 4 * spread * np.sqrt(1 / len(ours) + 1 / len(theirs))
    assert {w for words in ours for w in words} == {w for words in theirs for w in words}


def test_trees_that_are_not_selected():
    """Expected numbers of nodes a level: 1.5 times those above; arities 2 to 10 alike."""
    draw = Draw(1, 1, 1)
    trees = [_tree(draw, 5, 10**9) for _ in range(4000)]
    for depth in range(4):
        nodes = [t[depth].is_list.size if depth < len(t) else 0 for t in trees]
        error = np.std(nodes) / np.sqrt(len(nodes))
        assert abs(np.mean(nodes) - 1.5**depth) < 5 * error + 1e-12
    assert max(len(t) for t in trees) == 5
    arity = np.concatenate([level.arity for t in trees for level in t])
    counts = np.bincount(arity, minlength=11)
    assert counts[:2].sum() == 0
    np.testing.assert_allclose(counts[2:] / arity.size, 1 / 9, atol=0.02)
    operators = np.concatenate([level.operator for t in trees for level in t])
    np.testing.assert_allclose(np.bincount(operators) / operators.size, 0.25, atol=0.03)
    digits = np.concatenate([level.digit for t in trees for level in t])
    np.testing.assert_allclose(np.bincount(digits) / digits.size, 0.1, atol=0.01)


def test_the_root_alone_gives_a_third(examples):
    task = tasks.get("listops")
    assert 0.29 < np.mean([task.score(e, task.shortcut(e)) for e in examples]) < 0.43
    answers = {op: Counter() for op in range(10, 14)}
    for example in examples:
        answers[int(example.tokens[0])][example.answers[0]] += 1
    assert [answers[op].most_common(1)[0][0] for op in (10, 11)] == [0, 9]
    assert answers[12].most_common(2)[0][0] in (4, 5)
    roots = np.array([counter.total() for counter in answers.values()])
    np.testing.assert_allclose(roots / roots.sum(), 0.25, atol=0.09)


def test_longer_lists_may_be_deeper():
    assert [max_depth(n) for n in (32, 2000, 2001, 3000, 3001, 16384)] == [10, 10, 11, 11, 12, 16]
