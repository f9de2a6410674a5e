"""RULER's tasks: published parameters and wording, and oracles that read the text."""

import re
from collections import Counter

import numpy as np
import pytest

from longnet import tasks
from longnet.tasks.haystack import NOISE
from longnet.tasks.ruler_words import _others_that_fit
from longnet.tasks.words import MADE_UP

NEEDLE = re.compile(r"One of the special magic (numbers|uuids) for (\S+) is: (\S+)\.")
NIAH = [name for name in tasks.names() if name.startswith("niah")]

# haystack, kind of keys and of values, keys, values a key, queries: RULER's table 5.
PUBLISHED = {
    "niah_single_1": ("noise", "words", "numbers", 1, 1, 1),
    "niah_single_2": ("essay", "words", "numbers", 1, 1, 1),
    "niah_single_3": ("essay", "words", "uuids", 1, 1, 1),
    "niah_multikey_1": ("essay", "words", "numbers", 4, 1, 1),
    "niah_multikey_2": ("needle", "words", "numbers", 1, 1, 1),
    "niah_multikey_3": ("needle", "uuids", "uuids", 1, 1, 1),
    "niah_multivalue": ("essay", "words", "numbers", 1, 4, 1),
    "niah_multiquery": ("essay", "words", "numbers", 4, 1, 4),
}
FORMS = {"words": r"[a-z]+-[a-z]+", "numbers": r"[1-9]\d{6}", "uuids": r"[0-9a-f-]{36}"}


def made(name, length, count=6):
    task = tasks.get(name)
    for index in range(count):
        example = task.make(3, index, length)
        yield task, example, task.decode(example.prompt)


def in_bytes(text):
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize("name", NIAH)
@pytest.mark.parametrize("length", [1024, 16384])
def test_needles(name, length):
    haystack, keys, values, num_keys, num_values, num_queries = PUBLISHED[name]
    for task, example, text in made(name, length):
        one = num_queries * num_values == 1
        kind = values[:-1] if one else values
        assert text.startswith(
            f"A special magic {kind} is hidden" if one else f"Some special magic {kind} are hidden"
        )
        needles = NEEDLE.findall(text)
        assert {kind for kind, _, _ in needles} == {values}
        assert all(re.fullmatch(FORMS[keys], key) for _, key, _ in needles)
        assert all(re.fullmatch(FORMS[values], value) for _, _, value in needles)
        if haystack == "needle":
            assert len(needles) > length / 250
        else:
            assert len(needles) == num_keys * num_values
            assert (NOISE in text) == (haystack == "noise")
        question = re.search(
            r"\nWhat (?:is|are all) the special magic \w+ for (.*?) mentioned", text
        )[1]
        queries = re.split(r", and |, ", question)
        assert len(queries) == num_queries
        found = [value for query in queries for _, key, value in needles if key == query]
        assert len(found) == num_queries * num_values
        assert task.score(example, in_bytes(", ".join(found))) == 1
        assert found == list(example.answers)  # and in the order that prediction needs


def test_needles_lie_everywhere():
    for name in ("niah_single_1", "niah_multikey_1", "niah_multikey_3"):
        task = tasks.get(name)
        depths = [task.make(0, i, 8192).depths[0] for i in range(150)]
        assert np.histogram(depths, 5, (0, 1))[0].min() > 10


@pytest.mark.parametrize("length", [2560, 16384])
def test_variable_tracing(length):
    for task, example, text in made("vt", length):
        shot, question = text.split("\n\nMemorize")
        assert re.search(r"they are: ([A-Z]{3} ?){5}$", shot)
        value = re.search(r"assigned the value (\d{5}) in the text above", question)[1]
        names = {}
        for name, old in re.findall(r"VAR ([A-Z]{5}) = (?:VAR )?(\w{5})", question):
            names[name] = names.get(old, old)
        assert len(names) == 5
        assert set(names.values()) == {value}
        assert question.endswith(f"5 variables are assigned the value {value}, they are: ")
        assert task.score(example, in_bytes(" ".join(names))) == 1
        assert list(names) == list(example.answers)
        assert question.count(NOISE) >= 5


@pytest.mark.parametrize(
    ("length", "common", "uncommon", "shot"), [(2048, 6, 1, (3, 1)), (20_000, 30, 3, (10, 3))]
)
def test_common_words(length, common, uncommon, shot):
    for task, example, text in made("cwe", length):
        lists = re.findall(r"often\.\n(1\. .*)\nQuestion", text)
        assert len(lists) == 2
        for listed, (often, seldom) in zip(lists, (shot, (common, uncommon)), strict=True):
            entries = re.findall(r"(\d+)\. (\w+)", listed)
            assert [int(n) for n, _ in entries] == list(range(1, len(entries) + 1))
            counts = Counter(word for _, word in entries)
            assert Counter(counts.values())[often] == 10
            assert set(counts.values()) == {often, seldom}
        top = [word for word, count in counts.items() if count == common]
        answer = " ".join(f"{i}. {word}" for i, word in enumerate(top, 1))
        assert task.score(example, in_bytes(answer)) == 1
        assert top == list(example.answers)
        assert example.meta["words"] == len(counts)


def test_common_words_end_where_there_are_no_more_words():
    assert _others_that_fit(10**12, 30, 3) == MADE_UP - 10
    assert _others_that_fit(2000, 6, 1) == 115  # 175 entries of 9 bytes, 417 digits, less a space


@pytest.mark.parametrize("length", [1024, 4096, 30_000])
def test_frequent_words(length):
    for task, example, text in made("fwe", length):
        coded = re.search(r"coded words\. (\.\.\. .*|\w{6} .*)\nQuestion", text)[1]
        counts = Counter(coded.split())
        total = sum(counts.values())
        ranked = [word for word, _ in counts.most_common(4)]
        assert ranked[0] == "..."  # the first rank is noise
        assert task.score(example, in_bytes(", ".join(ranked[1:]))) == 1
        assert ranked[1:] == list(example.answers)
        # Frequencies are rank^-2 / zeta(2), rounded down.
        for rank, word in enumerate(ranked, 1):
            assert counts[word] == pytest.approx(total * 6 / np.pi**2 / rank**2, rel=0.12, abs=1)
        assert len(counts) <= length // 50
        assert all(re.fullmatch(r"[a-z]{6}", word) for word in counts if word != "...")
