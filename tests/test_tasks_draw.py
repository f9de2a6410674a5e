"""Random draws of the tasks: the same everywhere, and uniform."""

import numpy as np
import pytest

from longnet.tasks.draw import Draw


def test_words_are_philox_4x64_10():
    """The published known answer: counter and key of ones."""
    ones = 2**64 - 1
    bits = np.random.Philox(key=np.full(2, ones, np.uint64), counter=np.full(4, ones, np.uint64))
    # NumPy counts before it draws: the first block is that of counter + 1 = 0.
    assert [hex(w) for w in bits.random_raw(4).tolist()] == [hex(w) for w in _block(0, ones)]


def _block(counter, key):
    """Philox4x64-10 (Salmon et al. 2011) of a counter's lowest word; both key words the same."""
    mask = 2**64 - 1
    c, k = [counter, 0, 0, 0], [key, key]
    for _ in range(10):
        first, second = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [(second >> 64) ^ c[1] ^ k[0], second & mask, (first >> 64) ^ c[3] ^ k[1], first & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return c


def test_indices_do_not_overlap():
    firsts = {int(Draw(1, s, i).words(1)[0]) for s in range(20) for i in range(50)}
    assert len(firsts) == 1000


@pytest.mark.parametrize(("low", "high"), [(0, 2), (0, 10), (-3, 4), (10, 137)])
def test_integers_are_uniform(low, high):
    values = Draw(1, 2, high).integers(low, high, 20_000)
    counts = np.bincount(values - low, minlength=high - low)
    assert counts.size == high - low
    expected = values.size / counts.size
    freedom = counts.size - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_uniforms_are_uniform():
    values = Draw(1, 2, 3).uniforms(20_000)
    assert values.min() >= 0
    assert values.max() < 1
    np.testing.assert_allclose(np.histogram(values, 10, (0, 1))[0], 2000, atol=200)
    assert Draw(1, 2, 3).uniform() == values[0]


@pytest.mark.parametrize(("population", "count"), [(1, 1), (5, 5), (40, 4), (1000, 30), (10**6, 9)])
def test_samples_have_no_element_twice(population, count):
    draw = Draw(3, population, count)
    for _ in range(50):
        sample = draw.sample(population, count)
        assert sample.shape == (count,)
        assert len(set(sample.tolist())) == count
        assert sample.min() >= 0
        assert sample.max() < population


def test_permutations_are_uniform():
    draw = Draw(0, 0, 0)
    counts = np.zeros((5, 5))
    for _ in range(4000):
        counts[np.arange(5), draw.permutation(5)] += 1
    np.testing.assert_allclose(counts, 800, atol=125)


@pytest.mark.parametrize(
    ("length", "count", "width"), [(10, 5, 2), (9, 3, 3), (30, 4, 2), (7, 1, 7)]
)
def test_spaced_blocks_do_not_overlap_and_reach_everywhere(length, count, width):
    draw = Draw(length, count, width)
    seen = set()
    for _ in range(300):
        starts = draw.spaced(length, count, width)
        assert (np.diff(starts) >= width).all()
        assert starts[0] >= 0
        assert starts[-1] + width <= length
        seen |= set(starts.tolist())
    slack = length - count * width
    assert {s + width * i for i in range(count) for s in range(slack + 1)} <= seen
