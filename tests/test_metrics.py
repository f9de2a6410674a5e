"""Metrics beside values computed by hand."""

import math
import sys

import pytest

from longnet.errors import DataError, LongNetError
from longnet.evaluate import metrics


def test_word_perplexity():
    # Three words of two tokens each, every token with probability 1/2: 4 a word.
    assert metrics.word_perplexity(6 * math.log(2), 3) == pytest.approx(4)
    assert metrics.word_perplexity(0.0, 7) == 1
    assert metrics.word_perplexity(1e6, 2) == math.inf
    with pytest.raises(DataError, match="num_words: found 0, expected at least 1"):
        metrics.word_perplexity(1.0, 0)


@pytest.mark.parametrize(
    ("text", "words"), [("", 0), ("one", 1), (" two\n words\t", 2), ("it's a-b c.", 3)]
)
def test_count_words(text, words):
    assert metrics.count_words(text) == words


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("he said yes", ("he said", " yes")),
        ("he said  yes \n", ("he said", "  yes")),
        ("no\nyes", ("no", "\nyes")),
        ("yes and yes", ("yes and", " yes")),
    ],
)
def test_split_last_word(text, parts):
    assert metrics.split_last_word(text) == parts


@pytest.mark.parametrize("text", ["", "  ", "alone", " alone "])
def test_a_passage_of_one_word_is_refused(text):
    with pytest.raises(DataError, match="expected at least two words"):
        metrics.split_last_word(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat's  hat!", "cats hat"),
        ("An a the theory", "theory"),
        ("U.S.A", "usa"),  # punctuation goes before articles: no "a" is left
        ("to-day", "today"),
        ("...", ""),
    ],
)
def test_normalize_answer(text, normal):
    assert metrics.normalize_answer(text) == normal


def test_exact_match():
    assert metrics.exact_match("The Eiffel Tower.", "eiffel tower") == 1
    assert metrics.exact_match("Eiffel", "eiffel tower") == 0
    assert metrics.exact_match("", "the") == 1


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Paris", "paris", 1),
        ("in Paris, France", "Paris", 2 * 1 / (3 + 1)),
        ("the cat sat", "a cat sat down", 2 * 2 / (2 + 3)),
        ("no no no", "no", 2 * 1 / (3 + 1)),  # words count as often as both have them
        ("no no no", "no no", 2 * 2 / (3 + 2)),
        ("dog", "cat", 0),
        ("", "", 0),
        ("the", "cat", 0),
    ],
)
def test_token_f1(prediction, reference, score):
    assert metrics.token_f1(prediction, reference) == pytest.approx(score)
    assert metrics.token_f1(reference, prediction) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("a b c d", "a c", 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("Same, words!", "same words", 1),
        ("one", "two", 0),
        ("", "two", 0),
    ],
)
def test_rouge_l(prediction, reference, score):
    assert metrics.rouge_l(prediction, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("abcd", "abxd", 0.75),  # a, b, d: 2 * 3 / 8
        ("kitten", "sitting", 0.62),  # i, t, t, n: 2 * 4 / 13 = 0.615
        ("x = 1", "x = 1", 1),
        ("\n# a comment\n```\nx = 1\ny = 2", "x = 1", 1),
        ("return a", "", 0),
        ("", "", 1),
    ],
)
def test_edit_similarity(prediction, reference, score):
    assert metrics.edit_similarity(prediction, reference) == score


def test_first_code_line():
    assert metrics.first_code_line("\n\n  a()\nb()") == "  a()"
    assert metrics.first_code_line("// c\n# d\n`e`") == ""
    assert metrics.first_code_line("a\n\nb") == "a"


def test_number_share():
    assert metrics.number_share("Paragraph 7", "Paragraph 7") == 1
    assert metrics.number_share("3, 7 or 7", "7") == pytest.approx(2 / 3)
    assert metrics.number_share("17", "7") == 0
    assert metrics.number_share("none", "7") == 0
    with pytest.raises(DataError, match="reference: found 'seven', expected a number"):
        metrics.number_share("7", "seven")


def test_class_share():
    classes = ["City", "Country", "Other", "Other location"]
    assert metrics.class_share("It is a City.", "City", classes) == 1
    assert metrics.class_share("City or Country", "City", classes) == 0.5
    assert metrics.class_share("Other location", "Other location", classes) == 1
    assert metrics.class_share("Other location", "Other", classes) == 0.5
    assert metrics.class_share("Country", "City", classes) == 0
    assert metrics.class_share("", "City", classes) == 0


def test_standard_error():
    assert metrics.standard_error([0.0, 1.0, 1.0, 0.0]) == pytest.approx(math.sqrt(1 / 3) / 2)
    assert metrics.standard_error([1.0]) == 0


def test_best():
    assert metrics.best(metrics.exact_match, "two", ["one", "two"]) == 1
    assert metrics.best(metrics.token_f1, "x b", ["b c", "c b d e"]) == 0.5
    with pytest.raises(DataError, match="references: found none"):
        metrics.best(metrics.exact_match, "two", [])


@pytest.mark.parametrize(
    ("metric", "module", "library"),
    [
        (metrics.rouge_l, "rouge_score.rouge_scorer", "rouge-score"),
        (metrics.edit_similarity, "rapidfuzz.fuzz", "rapidfuzz"),
    ],
)
def test_a_missing_library_is_named(monkeypatch, metric, module, library):
    monkeypatch.setitem(sys.modules, module, None)
    metrics._rouge_scorer.cache_clear()
    with pytest.raises(LongNetError, match=f"needs the library {library}: pip install {library}"):
        metric("a", "b")
