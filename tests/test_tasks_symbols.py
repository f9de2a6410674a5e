"""Induction heads, associative recall, selective copying: distributions, and oracles."""

import numpy as np
import pytest

from longnet import tasks


def made(name, length, count):
    task = tasks.get(name)
    return task, [task.make(11, i, length) for i in range(count)]


def look_up(example):
    """After each asked token, what followed its first occurrence."""
    tokens = example.tokens.tolist()
    return np.array([tokens[tokens.index(tokens[i]) + 1] for i in example.asked.tolist()])


@pytest.mark.parametrize("name", ["induction_heads", "associative_recall"])
@pytest.mark.parametrize("length", [16, 100, 256, 2048])
def test_looking_up_the_first_occurrence_solves_it(name, length):
    task, examples = made(name, length, 20)
    for example in examples:
        assert example.tokens.size == length
        assert task.score(example, look_up(example)) == 1


@pytest.mark.parametrize(("length", "triggers"), [(16, 1), (64, 4), (256, 16), (2048, 16)])
def test_induction_heads(length, triggers):
    _, examples = made("induction_heads", length, 50)
    for example in examples:
        tokens = example.tokens
        shown = np.flatnonzero(tokens >= 16)
        assert shown.size == 2 * triggers
        assert (np.bincount(tokens[shown])[16:] % 2 == 0).all()  # each trigger twice
        early = shown < length * 3 // 4
        assert early.sum() == triggers
        np.testing.assert_array_equal(shown[~early], example.asked)
        assert len(example.answers) == example.meta["triggers"] == triggers
    answers = np.concatenate([example.answers for example in examples])
    assert set(answers.tolist()) <= set(range(16))
    if answers.size > 300:
        np.testing.assert_allclose(
            np.bincount(answers, minlength=16) / answers.size, 1 / 16, atol=0.04
        )


def test_a_triggers_first_neighbour_says_nothing_by_its_frequency():
    """Guessing the symbol that a sequence has most often, which needs no induction, is no way."""
    task, examples = made("induction_heads", 256, 200)
    most = [np.bincount(e.tokens[e.tokens < 16]).argmax() for e in examples]
    scores = [task.score(e, np.full(e.asked.size, m)) for e, m in zip(examples, most, strict=True)]
    assert np.mean(scores) < 0.2


@pytest.mark.parametrize(("length", "pairs"), [(8, 1), (64, 8), (512, 64), (4096, 64)])
def test_associative_recall(length, pairs):
    _, examples = made("associative_recall", length, 30)
    for example in examples:
        head = example.tokens[: 2 * pairs]
        keys, values = head[::2], head[1::2]
        assert len(set(keys.tolist())) == pairs
        assert keys.min() >= 1
        assert keys.max() <= 64 < values.min()
        rest = example.tokens[2 * pairs :]
        asked = example.tokens[example.asked]
        assert sorted(asked.tolist()) == sorted(keys.tolist())
        assert (rest != 0).sum() in (
            2 * pairs,
            2 * pairs - 1,
        )  # the last value may be the last target
    if length > 512:  # queries lie everywhere behind the pairs
        places = np.concatenate([example.asked for example in examples])
        np.testing.assert_allclose(
            np.histogram(places, 4, (2 * pairs, length))[0] / places.size, 0.25, atol=0.06
        )


@pytest.mark.parametrize("length", [32, 33, 256, 4096])
def test_selective_copying(length):
    task, examples = made("selective_copying", length, 40)
    for example in examples:
        tokens = example.tokens
        marker = length - 16
        assert tokens[marker] == 15
        data = tokens[:marker][tokens[:marker] != 0]
        assert data.size == 16
        assert data.max() <= 14
        assert task.score(example, data) == 1
        assert example.answers == tuple(data.tolist())
        assert example.prompt.size == marker + 1
    if length == 4096:
        places = np.concatenate([example.evidence for example in examples])
        np.testing.assert_allclose(
            np.histogram(places, 4, (0, length - 16))[0] / places.size, 0.25, atol=0.07
        )


def test_decoding_names_symbols():
    task, examples = made("selective_copying", 32, 1)
    words = task.decode(examples[0].tokens).split()
    assert words[16] == "copy"
    assert words[17:] == words[:16][: len(words) - 17]
