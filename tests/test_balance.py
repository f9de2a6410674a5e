"""Shards on which attention takes equally long."""

from functools import cache
from itertools import pairwise

import pytest

import longnet
from longnet.parallel import balanced_shards

LEVELS = [32, 1024], [1, 4]
N, HEADS = 1024, 4


@cache
def pairs_by_row():
    """Pairs of each query, counted key by key."""
    attention = longnet.DilatedAttention(*LEVELS, True)
    return sum(attention.visible(N, head, heads=HEADS).sum(axis=1) for head in range(HEADS))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_rank_has_as_many_pairs(ranks):
    attention = longnet.DilatedAttention(*LEVELS, True)
    shards = balanced_shards(attention, N, HEADS, ranks)
    assert shards[0][0] == 0
    assert shards[-1][1] == N
    assert all(before[1] == after[0] for before, after in pairwise(shards))
    work = [int(pairs_by_row()[begin:end].sum()) for begin, end in shards]
    assert sum(work) == attention.pairs(N, HEADS)
    assert max(work) <= 1.02 * min(work)
    if ranks > 1:
        assert shards[0][1] > 1.2 * N / ranks  # equal shards would not be balanced


def test_shards_begin_at_multiples():
    attention = longnet.DilatedAttention(*LEVELS, True)
    for begin, _ in balanced_shards(attention, 4000, 4, 3, multiple=64):
        assert begin % 64 == 0


def test_bidirectional_shards_are_equal():
    attention = longnet.DilatedAttention(*LEVELS, False)
    assert balanced_shards(attention, 100, 4, 3) == [(0, 34), (34, 67), (67, 100)]


def test_more_ranks_than_rows():
    attention = longnet.DilatedAttention(*LEVELS, True)
    shards = balanced_shards(attention, 2, 4, 4)
    assert sum(end - begin for begin, end in shards) == 2
    assert balanced_shards(attention, 0, 4, 2) == [(0, 0), (0, 0)]


@pytest.mark.parametrize("name", ["ranks", "multiple"])
def test_bad_numbers(name):
    attention = longnet.DilatedAttention(*LEVELS, True)
    options = {"ranks": 2, "multiple": 1, name: 0}
    with pytest.raises(longnet.ConfigError, match=f"{name}: found 0, expected 1 or more"):
        balanced_shards(attention, 100, 4, **options)
