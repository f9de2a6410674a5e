"""Passkey, needle and key-value retrieval: wording, depths, and oracles that read the text."""

import json
import re

import numpy as np
import pytest

from longnet import tasks
from longnet.tasks.draw import Draw
from longnet.tasks.haystack import NOISE, sentences


def read(task, example):
    return task.decode(example.prompt)


def in_bytes(answer, end="\n"):
    return np.frombuffer((answer + end).encode(), np.uint8)


@pytest.mark.parametrize("length", [320, 1000, 32768])
def test_passkey(length):
    task = tasks.get("passkey")
    keys = []
    for index in range(40):
        example = task.make(2, index, length)
        assert example.tokens.size == length  # the noise is cut to fit
        text = read(task, example)
        found = re.search(r"\nThe pass key is (\d+)\. Remember it\. \1 is the pass key\.\n", text)
        assert text.endswith("\nWhat is the pass key? The pass key is ")
        assert found[1] == example.answers[0]
        assert task.score(example, in_bytes(found[1])) == 1
        noise = text.split("\n")[1]
        assert (NOISE + " ").startswith(noise[: len(NOISE) + 1])
        keys.append(int(found[1]))
    assert 1 <= min(keys) < 20_000
    assert 30_000 < max(keys) <= 50_000


def test_passkey_is_the_whole_first_number():
    task = tasks.get("passkey")
    example = next(e for e in (task.make(0, i, 400) for i in range(50)) if len(e.answers[0]) == 4)
    number = example.answers[0]
    for text, score in [
        (number, 1),
        (f" {number}. Remember it", 1),
        (f"{number}7", 0),
        (f"12 {number}", 0),
        ("", 0),
    ]:
        assert task.score(example, in_bytes(text, "")) == score


@pytest.mark.parametrize("length", [256, 2000, 20_000])
def test_needle(length):
    task = tasks.get("needle")
    cities = set()
    for index in range(30):
        example = task.make(2, index, length)
        text = read(task, example)
        found = re.findall(r"The special magic (\w+) number is: (\d{7})\.", text)
        assert len(found) == 1
        city, number = found[0]
        assert text.endswith(
            f"\nWhat is the special magic {city} number?\nThe special magic {city} number is: "
        )
        assert task.score(example, in_bytes(number)) == 1
        assert len(re.findall(r"\d", text)) == 7  # nothing else looks like an answer
        cities.add(city)
    assert len(cities) > 10


@pytest.mark.parametrize("pairs", [75, 140, 300])
def test_key_value_retrieval(pairs):
    task = tasks.get(f"kv_retrieval_{pairs}")
    places = []
    for index in range(25):
        example = task.make(4, index, task.minimum_length + index)
        text = read(task, example)
        records = json.loads(text[text.index("{") : text.index("}") + 1])
        assert len(records) == pairs
        for uuid in (*records, *records.values()):
            assert re.fullmatch(
                r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid
            )
        key = re.search(r'\n\nKey: "(.*)"\nCorresponding value: "$', text)[1]
        assert list(records).index(key) == example.meta["position"]
        assert task.score(example, in_bytes(records[key], '"\n')) == 1
        assert example.tokens.size == task.minimum_length
        places.append(example.meta["position"])
    assert min(places) < pairs // 4
    assert max(places) > 3 * pairs // 4
    first, last = (task.make(0, 0, 30_000, depth=d).meta["position"] for d in (0.0, 1.0))
    assert (first, last) == (0, pairs - 1)


def test_key_value_retrieval_fills_its_length():
    task = tasks.get("kv_retrieval")
    assert task.make(0, 0, task.minimum_length).meta["pairs"] == 2
    assert task.make(0, 0, task.minimum_length + 81).meta["pairs"] == 3
    assert task.make(0, 0, tasks.get("kv_retrieval_140").minimum_length).meta["pairs"] == 140


def test_prose_is_sentences_that_differ():
    text = sentences(Draw(0, 0, 0), 200_000)
    assert 200_000 - 200 < sum(len(s) + 1 for s in text) <= 200_000
    assert len(set(text)) > 0.99 * len(text)
    for sentence in text:
        assert re.fullmatch(r"[A-Z][a-z ,]+\.", sentence)
        assert "magic" not in sentence
        assert not re.search(r"\ban [^aeiou]|\ba [aeiou]", sentence)
    assert sentences(Draw(0, 0, 0), 0) == []


def test_generated_text_is_scored_as_well_as_predictions():
    task = tasks.get("niah_multivalue")
    example = task.make(0, 0, 2048)
    three = in_bytes(" and ".join(reversed(example.answers[1:])), " are the numbers, I think")
    assert task.score(example, three) == 0.75
    assert task.scores(example, three).tolist() == [0, 1, 1, 1]
