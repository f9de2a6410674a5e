"""Which tokens may be chosen, and how often."""

import numpy as np
import pytest

from longnet.errors import ConfigError, DataError
from longnet.generate.sampling import Sampling


def choices(logits, count=3000, **options):
    """Frequencies of the tokens chosen from one position's logits, (V,)."""
    rule = Sampling(**options)
    random = np.random.Generator(np.random.Philox(key=1))
    chosen = [rule.choose(np.array(logits), random) for _ in range(count)]
    return np.bincount(chosen, minlength=len(logits)) / count


def softmax(logits):
    weights = np.exp(np.array(logits) - max(logits))
    return weights / weights.sum()


def test_frequencies_are_the_probabilities():
    logits = [0.0, 1.0, -1.0, 2.0]
    assert choices(logits) == pytest.approx(softmax(logits), abs=0.03)
    assert choices(logits, temperature=0.5) == pytest.approx(
        softmax([2 * x for x in logits]), abs=0.03
    )


def test_top_k():
    logits = [0.0, 1.0, -1.0, 2.0]
    found = choices(logits, top_k=2)
    assert found[[0, 2]].tolist() == [0, 0]
    assert found[3] == pytest.approx(softmax([1.0, 2.0])[1], abs=0.03)
    assert choices(logits, top_k=1)[3] == 1
    assert choices(logits, top_k=99) == pytest.approx(softmax(logits), abs=0.03)


def test_top_k_takes_the_first_of_equal_ones():
    found = choices([1.0, 3.0, 1.0, 3.0, 1.0, 1.0], top_k=3)
    assert set(np.flatnonzero(found)) == {0, 1, 3}


@pytest.mark.parametrize(
    ("top_p", "allowed"),
    [(0.3, [3]), (0.5, [3]), (0.51, [3, 1]), (0.75, [3, 1]), (0.8, [3, 1, 0]), (1.0, [3, 1, 0, 2])],
)
def test_top_p(top_p, allowed):
    logits = np.log([0.125, 0.25, 0.125, 0.5])
    found = choices(logits, top_p=top_p)
    assert set(np.flatnonzero(found)) == set(allowed)


def test_top_p_counts_what_top_k_leaves():
    logits = np.log([0.1, 0.2, 0.3, 0.4])  # of 3 and 2: 4/7 and 3/7
    assert set(np.flatnonzero(choices(logits, top_k=2, top_p=0.5))) == {3}
    assert set(np.flatnonzero(choices(logits, top_k=2, top_p=0.6))) == {3, 2}


def test_small_temperatures_and_far_logits_stay_finite():
    assert choices([0.0, 1e4, -1e30, 5.0], 50, temperature=1e-300).tolist() == [0, 1, 0, 0]
    assert choices([3.0, 3.0, 2.0, 1.0], 50, temperature=0).tolist() == [1, 0, 0, 0]


def test_logits_that_are_not_finite():
    with pytest.raises(DataError, match="logits: NaN"):
        choices([0.0, np.nan], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature: found -0.1, expected a finite value of at least 0"),
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"temperature": float("inf")}, "temperature: found inf"),
        ({"top_k": 0}, "top_k: found 0, expected at least 1"),
        ({"top_p": 0.0}, r"top_p: found 0.0, expected a probability in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p: found 1.5"),
        ({"top_p": float("nan")}, "top_p: found nan"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 2**128}, "seed: found .* expected 0 to"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)
