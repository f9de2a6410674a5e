"""Batches: coverage, shuffling, exact resumption, 64-bit positions; validation windows."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longnet.data import ArraySource, Batches, validation_windows
from longnet.data.permutation import Permutation
from longnet.errors import DataError


class Counting:
    """Tokens 0, 1, 2, ... of any number, without memory; the low 31 bits of the position."""

    fingerprint = "counting"

    def __init__(self, length):
        self._length = length
        self.starts = []

    def __len__(self):
        return self._length

    def read(self, start, count):
        assert start >= 0
        assert start + count <= self._length
        self.starts.append(start)
        return (np.arange(start, start + count) % 2**31).astype(np.int32)


def epoch_starts(length, sequence_length, seed, epoch):
    """Starts of the windows of one whole epoch, read one at a time."""
    source = Counting(length)
    batches = Batches(source, 1, sequence_length, seed)
    batches.load_state_dict(batches.state_dict() | {"epoch": epoch})
    while batches.state_dict()["epoch"] == epoch:
        next(batches)
    return source.starts[:-1]


@settings(max_examples=50, deadline=None)
@given(
    length=st.integers(2, 300),
    batch_size=st.integers(1, 5),
    sequence_length=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
)
def test_shapes_and_shift(length, batch_size, sequence_length, seed):
    source = ArraySource(np.arange(max(length, sequence_length + 1)))
    for inputs, targets in itertools.islice(Batches(source, batch_size, sequence_length, seed), 5):
        for array in (inputs, targets):
            assert array.shape == (batch_size, sequence_length)
            assert array.dtype == np.int32
            assert array.flags.c_contiguous
            assert array.flags.writeable
        np.testing.assert_array_equal(targets, inputs + 1)
        assert (np.diff(inputs, axis=1) == 1).all()


@settings(max_examples=50, deadline=None)
@given(
    sequence_length=st.integers(1, 20),
    extra=st.integers(1, 200),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 5),
)
def test_an_epoch_covers_the_source_without_overlap(sequence_length, extra, seed, epoch):
    length = sequence_length + extra
    starts = sorted(epoch_starts(length, sequence_length, seed, epoch))
    offset = starts[0]
    assert 0 <= offset < sequence_length
    windows = (length - 1 - offset) // sequence_length
    assert starts == [offset + i * sequence_length for i in range(windows)]
    assert length - 1 - (starts[-1] + sequence_length) < sequence_length


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_starts(1000, 10, s, e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    assert len({order[0] % 10 for order in orders}) > 1  # offsets too


def test_the_same_seed_gives_the_same_batches():
    one, two = (Batches(Counting(10_000), 3, 7, seed=5) for _ in range(2))
    for (a, b), (c, d) in itertools.islice(zip(one, two, strict=True), 600):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(0, 60), batch_size=st.integers(1, 7), seed=st.integers(0, 2**64 - 1))
def test_resuming_is_exact(steps, batch_size, seed):
    source = Counting(401)
    batches = Batches(source, batch_size, 8, seed)
    for _ in range(steps):
        next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    resumed = Batches(source, batch_size, 8, seed=0)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    for (a, b), (c, d) in itertools.islice(zip(batches, resumed, strict=True), 30):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_another_batch_size_goes_on_with_the_same_windows():
    four, one = Batches(Counting(999), 4, 5, seed=1), Batches(Counting(999), 1, 5, seed=1)
    next(four)
    one.load_state_dict(four.state_dict())
    np.testing.assert_array_equal(next(four)[0], np.concatenate([next(one)[0] for _ in range(4)]))


@pytest.mark.parametrize("length", [2**31 + 12345, 2**40, 2**50 + 1])
def test_long_sources(length):
    source = Counting(length)
    for _ in itertools.islice(Batches(source, 8, 1, seed=3), 25):
        pass
    assert len(set(source.starts)) == 200
    assert max(source.starts) > length // 2
    assert np.mean(source.starts) == pytest.approx(length / 2, rel=0.15)
    inputs, _ = validation_windows(source, 1000, 5)
    assert inputs.shape == (5, 1000)


def test_shortest_source():
    batches = Batches(Counting(9), 3, 8, seed=0)
    for inputs, _ in itertools.islice(batches, 4):
        np.testing.assert_array_equal(inputs, np.tile(np.arange(8), (3, 1)))
    inputs, targets = validation_windows(Counting(9), 8, 10)
    np.testing.assert_array_equal(inputs, [np.arange(8)])
    np.testing.assert_array_equal(targets, [np.arange(1, 9)])


@pytest.mark.parametrize(
    "make", [lambda s: Batches(s, 1, 8), lambda s: validation_windows(s, 8, 1)]
)
@pytest.mark.parametrize("length", [0, 1, 8])
def test_source_too_short(make, length):
    with pytest.raises(DataError, match=rf"source: {length} tokens, expected at least 9"):
        make(Counting(length))


def test_bad_numbers():
    source = Counting(100)
    with pytest.raises(DataError, match="batch_size: 0, expected at least 1"):
        Batches(source, 0, 8)
    with pytest.raises(DataError, match=f"batch_size: {2**62}, expected at most"):
        Batches(source, 2**62, 8)
    with pytest.raises(DataError, match="sequence_length: 0, expected at least 1"):
        Batches(source, 1, 0)
    with pytest.raises(DataError, match="seed: -1, expected an integer"):
        Batches(source, 1, 8, seed=-1)
    with pytest.raises(DataError, match="limit: 0 validation windows, expected at least 1"):
        validation_windows(source, 8, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "other"}, "fingerprint 'other', expected 'counting'"),
        ({"sequence_length": 9}, "sequence_length 9, expected 8"),
        ({"position": 1000}, r"position 1000, expected 0\.\."),
        ({"position": 1.5}, "position 1.5, expected 0"),
        ({"epoch": -1}, "epoch -1, expected an integer"),
        ({"seed": 2**64}, "seed: 18446744073709551616, expected an integer"),
    ],
)
def test_bad_state_changes_nothing(change, message):
    batches = Batches(Counting(100), 2, 8, seed=1)
    next(batches)
    before = batches.state_dict()
    with pytest.raises(DataError, match=message):
        batches.load_state_dict(before | change)
    with pytest.raises(DataError, match="no 'seed', expected keys seed, epoch"):
        batches.load_state_dict({})
    assert batches.state_dict() == before


@settings(deadline=None)
@given(sequence_length=st.integers(1, 20), extra=st.integers(1, 500), limit=st.integers(1, 40))
def test_validation_windows(sequence_length, extra, limit):
    length = sequence_length + extra
    inputs, targets = validation_windows(Counting(length), sequence_length, limit)
    total = (length - 1) // sequence_length
    assert inputs.shape == targets.shape == (min(limit, total), sequence_length)
    assert inputs.flags.c_contiguous
    assert targets.flags.c_contiguous
    np.testing.assert_array_equal(targets, inputs + 1)
    gaps = np.diff(inputs[:, 0])
    assert (gaps >= sequence_length).all()
    if gaps.size:
        assert gaps.max() - gaps.min() <= sequence_length
    assert length - inputs[-1, -1] <= (total // len(inputs) + 2) * sequence_length


@pytest.mark.parametrize("size", [*range(1, 40), 255, 256, 257, 1000, 65537])
def test_permutation_is_a_bijection(size):
    order = Permutation(size, np.random.default_rng(size))(np.arange(size))
    np.testing.assert_array_equal(np.sort(order), np.arange(size))
    by_one = Permutation(size, np.random.default_rng(size))
    assert [int(by_one(np.array([i]))[0]) for i in range(min(size, 20))] == order[:20].tolist()


@pytest.mark.parametrize("size", [2, 3, 5, 12, 30])
def test_permutation_is_uniform(size):
    """Every index goes everywhere equally often, and so do pairs of neighbours: chi-squared."""
    trials = 1000
    singles, pairs = np.zeros((size, size)), np.zeros((size, size))
    for key in range(trials):
        generator = np.random.Generator(np.random.Philox(key=[key, 7]))
        order = Permutation(size, generator)(np.arange(size))
        singles[np.arange(size), order] += 1
        pairs[order[:-1], order[1:]] += 1
    expected = trials / size
    chi2 = ((singles - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom)
    off_diagonal = pairs[~np.eye(size, dtype=bool)]
    expected = trials / size
    chi2 = ((off_diagonal - expected) ** 2 / expected).sum()
    freedom = max(1, off_diagonal.size - 1)
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom)
