"""Unigram and bigram baselines against a few lines of plain Python."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longnet.errors import DataError
from longnet.evaluate import ngram, ngram_bits_per_byte


def reference(train, inputs, targets, vocab_size):
    singles, pairs = Counter(train), Counter(pairwise(train))
    followed = Counter(train[:-1])
    kinds = Counter(context for context, _ in pairs)

    def p1(x):
        return (singles[x] + len(singles) / vocab_size) / (len(train) + len(singles))

    def p2(x, c):
        if not followed[c]:
            return p1(x)
        return (pairs[c, x] + kinds[c] * p1(x)) / (followed[c] + kinds[c])

    unigram = -sum(math.log2(p1(x)) for x in targets)
    bigram = -sum(math.log2(p2(x, c)) for c, x in zip(inputs, targets, strict=True))
    return unigram / len(targets), bigram / len(targets)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), vocab_size=st.sampled_from([1, 3, 256, 50257]))
def test_equals_reference(data, vocab_size):
    ids = st.integers(0, min(vocab_size, 12) - 1)
    train = data.draw(st.lists(ids, min_size=1, max_size=200))
    scored = data.draw(st.lists(ids, min_size=2, max_size=100))
    inputs, targets = np.array(scored[:-1], np.int32), np.array(scored[1:], np.int32)
    bits = ngram_bits_per_byte(np.array(train, np.int32), inputs, targets, vocab_size)
    np.testing.assert_allclose(
        bits, reference(train, scored[:-1], scored[1:], vocab_size), rtol=1e-12, atol=1e-12
    )


def test_table_and_sorting_agree(monkeypatch):
    rng = np.random.default_rng(0)
    train, scored = rng.integers(0, 50, 5000) ** 2 // 50, rng.integers(0, 50, (4, 101))
    table = ngram_bits_per_byte(train, scored[:, :-1], scored[:, 1:], 50)
    monkeypatch.setattr(ngram, "_TABLE_PAIRS", 0)
    assert ngram_bits_per_byte(train, scored[:, :-1], scored[:, 1:], 50) == table


def test_distributions_sum_to_one():
    train = np.random.default_rng(1).integers(0, 5, 40)
    for context in range(8):  # 5, 6 and 7 are never seen
        bits = [ngram_bits_per_byte(train, np.array([context]), np.array([x]), 8) for x in range(8)]
        for total in np.exp2(-np.array(bits)).sum(axis=0):
            assert total == pytest.approx(1, abs=1e-12)


def test_a_markov_chain_reaches_its_entropy():
    rng = np.random.default_rng(2)
    steps = rng.integers(0, 2, 200_001)  # each token is the last one or the next: 1 bit a token
    chain = np.cumsum(steps) % 16
    bits = ngram_bits_per_byte(chain[:100_000], chain[100_000:-1], chain[100_001:], 16)
    assert bits.bigram == pytest.approx(1, abs=0.005)
    assert bits.unigram == pytest.approx(4, abs=0.01)


def test_bytes_divide():
    train = np.arange(10)
    one = ngram_bits_per_byte(train, train[:-1], train[1:], 10)
    two = ngram_bits_per_byte(train, train[:-1], train[1:], 10, num_bytes=18)
    np.testing.assert_allclose(two, np.array(one) / 2)


def test_bad_input():
    ids, empty = np.arange(4), np.zeros(0, np.int32)
    with pytest.raises(DataError, match="train_tokens: 0 tokens, expected at least 1"):
        ngram_bits_per_byte(empty, ids, ids, 4)
    with pytest.raises(DataError, match="inputs: 0 tokens"):
        ngram_bits_per_byte(ids, empty, empty, 4)
    with pytest.raises(DataError, match=r"shape \(3,\), expected \(4,\)"):
        ngram_bits_per_byte(ids, ids, ids[1:], 4)
    with pytest.raises(DataError, match=r"train_tokens: token id 3, expected 0\.\.2"):
        ngram_bits_per_byte(ids, ids, ids, 3)
    with pytest.raises(DataError, match=r"targets: token id -1, expected 0\.\.3"):
        ngram_bits_per_byte(ids, ids, ids - 1, 4)
    with pytest.raises(DataError, match="num_bytes: 0, expected at least 1"):
        ngram_bits_per_byte(ids, ids, ids, 4, num_bytes=0)
