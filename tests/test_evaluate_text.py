"""Text benchmarks beside sums over the tokens that they stand for."""

import json
import math

import numpy as np
import pytest

from longnet.config import Config
from longnet.data import ByteTokenizer
from longnet.errors import DataError
from longnet.evaluate import longbench, text
from longnet.evaluate.readers import Book, Passage, Question
from longnet.model import LongNet

TOKENIZER = ByteTokenizer()


@pytest.fixture(scope="module")
def model():
    config = Config(
        vocab_size=256,
        num_layers=1,
        embed_dim=32,
        num_heads=2,
        segment_lengths=(8,),
        dilation_rates=(1,),
    )
    return LongNet(config, seed=1)


def nats_of(model, tokens):
    """Losses of tokens[1:], each from all tokens before it."""
    logits = model.logits(tokens[None, :-1]).data.numpy()[0].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_p[np.arange(len(tokens) - 1), tokens[1:]], logits.argmax(-1)


@pytest.mark.parametrize("length", [1, 4, 5, 20, 99])
def test_every_token_but_the_first_counts_once(model, rng, length):
    rows = rng.integers(0, 256, (3, 21)).astype(np.int32)
    expected = sum(
        nats_of(model, row[begin : begin + length + 1])[0].sum()
        for row in rows
        for begin in range(0, 20, length)
    )
    assert text.sum_of_losses(model, rows, length, "cpu") == pytest.approx(expected, rel=1e-5)


def test_contexts(model, rng):
    rows = rng.integers(0, 256, (2, 13)).astype(np.int32)
    short, long = text.evaluate_contexts(model, rows, [4, 100], num_bytes=30)
    nats = sum(nats_of(model, row)[0].sum() for row in rows)
    assert (short["length"], long["length"], long["tokens"]) == (4, 100, 24)
    assert long["loss"] == pytest.approx(nats / 24, rel=1e-5)
    assert long["perplexity"] == pytest.approx(math.exp(nats / 24), rel=1e-4)
    assert long["bits_per_byte"] == pytest.approx(nats / math.log(2) / 30, rel=1e-5)
    assert next(text.evaluate_contexts(model, rows, [4]))["bits_per_byte"] is None


@pytest.mark.parametrize(
    ("shape", "length", "message"),
    [
        ((1, 5), 0, "length: found 0, expected at least 1"),
        ((1, 1), 4, "text: found 1 tokens, expected at least 2"),
    ],
)
def test_text_that_cannot_be_scored(model, shape, length, message):
    with pytest.raises(DataError, match=message):
        text.sum_of_losses(model, np.zeros(shape, np.int32), length, "cpu")


def test_lambada(model):
    passages = [Passage("a b", " c"), Passage("one two three", " four"), Passage("x", " y")]
    nats, right = 0.0, []
    for context, word in ((p.context, p.word) for p in passages):
        losses, ids = nats_of(model, TOKENIZER.encode(context + word))
        nats += losses[-len(word) :].sum()
        right.append((ids[-len(word) :] == TOKENIZER.encode(word)).all())
    found = text.evaluate_lambada(model, TOKENIZER, iter(passages))
    assert (found["examples"], found["accuracy"]) == (3, np.mean(right))
    assert found["perplexity"] == pytest.approx(math.exp(nats / 3), rel=1e-4)
    assert text.evaluate_lambada(model, TOKENIZER, iter(passages), examples=2)["examples"] == 2
    with pytest.raises(DataError, match="LAMBADA: 0 passages, expected at least 1"):
        text.evaluate_lambada(model, TOKENIZER, iter([]))


def test_the_last_word_is_right_when_all_its_tokens_are(model, monkeypatch):
    passages = [Passage("a b", " cd"), Passage("a b", " ef")]

    def predicted(model, inputs, targets):
        expected = targets[targets != -100]
        ids = expected.copy()
        ids[-1] += 1
        return type("P", (), {"ids": ids, "nats": np.full(ids.size, math.log(2))})

    monkeypatch.setattr(text, "predict", predicted)
    found = text.evaluate_lambada(model, TOKENIZER, iter(passages))
    assert found == {
        "examples": 2,
        "accuracy": 0.5,
        "standard_error": pytest.approx(0.5),
        "perplexity": pytest.approx(8),  # three tokens a word
    }


def test_books(model):
    books = [Book("1", "A", 1900, "one two  three"), Book("2", "B", 1901, "four\nfive")]
    *single, both = text.evaluate_books(model, TOKENIZER, iter(books), 100)
    nats = [nats_of(model, TOKENIZER.encode(book.text))[0].sum() for book in books]
    assert [record["book"] for record in single] == ["1", "2"]
    assert single[0]["word_perplexity"] == pytest.approx(math.exp(nats[0] / 3), rel=1e-4)
    assert (both["book"], both["words"], both["tokens"]) == ("all", 5, 13 + 8)
    assert both["word_perplexity"] == pytest.approx(math.exp(sum(nats) / 5), rel=1e-4)
    assert both["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / 21, rel=1e-5)


def question(dataset, answers, classes=()):
    return Question(dataset, "The context.", "A question?", tuple(answers), tuple(classes), 2)


@pytest.mark.parametrize(
    ("dataset", "answers", "prediction", "score"),
    [
        ("hotpotqa", ["Ann", "Ann Bee"], "the Ann bee.", 1),
        ("hotpotqa_e", ["Ann"], "Ann Bee", 2 / 3),
        ("triviaqa", ["Ann"], "\nAnn\nQuestion: next", 1),  # of which the first line counts
        ("qmsum", ["police killed the gunman"], "police kill the gunman", 0.75),
        ("passage_count", ["7"], "7, no 8", 0.5),
        ("passage_retrieval_en", ["Paragraph 12"], "Paragraph 12", 1),
        ("lcc", ["abxd"], "\nabcd\nmore", 0.75),
        ("trec", ["City"], "City or Other", 0.5),
    ],
)
def test_answers_of_longbench(dataset, answers, prediction, score):
    asked = question(dataset, answers, ["City", "Other"])
    assert longbench.score_answer(asked, prediction) == pytest.approx(score)


def test_longbench_in_chinese_has_no_metric():
    with pytest.raises(DataError, match="dataset 'vcsum', expected one of narrativeqa"):
        longbench.score_answer(question("vcsum", ["x"]), "x")


def test_longbench(model, monkeypatch, tmp_path):
    prompts = []

    def generate(model, tokens, new_tokens, *, temperature, stop_token):
        assert (new_tokens, temperature, stop_token) == (9, 0, None)
        prompts.append(TOKENIZER.decode(tokens))
        return TOKENIZER.encode("Ann")

    monkeypatch.setattr(longbench, "generate", generate)
    path = tmp_path / "dataset2prompt.json"
    path.write_text(json.dumps({"hotpotqa": "Read: {context} {input} {context}!"}))
    asked = [question("hotpotqa", ["Ann"]), question("qasper_e", ["Bo"]), question("x", ["y"])]
    options = {"prompts": longbench.read_prompts(path), "new_tokens": 9, "examples": 2}
    found = list(longbench.evaluate_longbench(model, TOKENIZER, iter(asked), **options))
    assert prompts == [
        "Read: The context. A question? The context.!",
        "The context.\n\nA question?\n",
    ]
    assert [(r["dataset"], r["examples"], r["score"]) for r in found] == [
        ("hotpotqa", 1, 1.0),
        ("qasper_e", 1, 0.0),
    ]
    prompts.clear()
    list(longbench.evaluate_longbench(model, TOKENIZER, iter(asked), length=7, **options))
    assert prompts == ["Reaxt.!", "Theon?\n"]  # 3 of the head, 4 of the tail
    with pytest.raises(DataError, match="LongBench: 0 questions, expected at least 1"):
        next(longbench.evaluate_longbench(model, TOKENIZER, iter([]), prompts={}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected LongBench's dataset2prompt"),
        ('["a"]', "found other JSON"),
        (None, "No such"),
    ],
)
def test_prompts_of_another_form(tmp_path, content, message):
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        longbench.read_prompts(path)
