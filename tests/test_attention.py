"""The figure of which keys each query sees, and the counts behind it."""

import sys
from dataclasses import asdict

import numpy as np
import pytest
from attention_cases import random_pattern
from reference import dilated_attention as reference

longnet = pytest.importorskip("longnet")


@pytest.mark.parametrize("seed", range(60))
def test_visible_and_pairs(seed):
    rng = np.random.default_rng(seed)
    n, heads = int(rng.integers(0, 60)), int(rng.integers(1, 9))
    pattern = random_pattern(rng, max(n, 1))
    attention = longnet.DilatedAttention(**asdict(pattern))
    pairs = 0
    for head in range(heads):
        count = attention.visible(n, head, heads=heads)
        assert count.dtype == np.uint8
        np.testing.assert_array_equal(count, reference.visible(pattern, n, head, heads))
        pairs += count.sum(dtype=int)
    assert attention.pairs(n, heads) == pairs


def test_visible_needs_no_heads_when_interleaved():
    attention = longnet.DilatedAttention([8, 16], [1, 4])
    for head in range(9):
        np.testing.assert_array_equal(
            attention.visible(21, head), attention.visible(21, head, heads=9)
        )


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((-1,), {}, "N: -1, expected 0 or more"),
        ((8, -2), {}, "head: -2, expected 0 or more"),
        ((8, 4), {"heads": 4}, "head: 4, expected 0 to 3"),
        ((8, 1), {}, "heads: None, expected the number of heads: grouped offsets need it"),
    ],
)
def test_bad_arguments(arguments, options, message):
    attention = longnet.DilatedAttention([8], [2], offsets="grouped")
    for call in (attention.visible, attention.plot):
        with pytest.raises(longnet.ConfigError) as raised:
            call(*arguments, **options)
        assert str(raised.value) == message


def test_numbers_that_leave_nothing_to_count_or_draw(plt):
    attention = longnet.DilatedAttention([8], [2])
    with pytest.raises(longnet.ConfigError, match="N: -5, expected 0 or more"):
        attention.pairs(-5, 4)
    with pytest.raises(longnet.ConfigError, match="heads: 0, expected 1 or more"):
        attention.pairs(5, 0)
    with pytest.raises(longnet.ConfigError, match="N: 0, expected 1 or more"):
        attention.plot(0)


@pytest.fixture
def plt():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


@pytest.mark.parametrize("n", [1, 64, 100, 800])
def test_plot(plt, n):
    attention = longnet.DilatedAttention([16, 64], [1, 4])
    ax = attention.plot(n, head=1)
    np.testing.assert_array_equal(ax.images[0].get_array(), attention.visible(n, 1))
    for word in ("16/1", "64/4", "head 1"):
        assert word in ax.get_title()
    squares = sum(len(x.get_segments()) for x in ax.collections)
    assert squares == -(-n // 16) + -(-n // 64) - (n < 16)
    ax.figure.canvas.draw()


def test_plot_into_axes(plt):
    _, axes = plt.subplots(1, 2)
    attention = longnet.DilatedAttention([16], [2], offsets="grouped")
    assert attention.plot(32, 3, axes[1], heads=4) is axes[1]
    assert not axes[0].images


def test_plot_without_matplotlib(monkeypatch):
    for name in ("matplotlib.pyplot", "matplotlib.colors", "matplotlib.collections"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        longnet.DilatedAttention([16], [2]).plot(32)


def test_import_does_not_load_matplotlib(python):
    code = "import sys, longnet; sys.exit('matplotlib' in sys.modules)"
    assert python("-c", code).returncode == 0
