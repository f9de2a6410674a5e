"""Seeds: reproducible, different, resumable."""

import pytest

import longnet
from longnet import random


def test_seeds_repeat_and_differ():
    a, b = random.RandomState(3), random.RandomState(3)
    seeds = [a.next_seed() for _ in range(100)]
    assert seeds == [b.next_seed() for _ in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) >= 2**60
    assert random.RandomState(4).next_seed() not in seeds


def test_a_name_has_one_seed():
    assert random.derive_seed(1, "a") == random.derive_seed(1, "a")
    assert len({random.derive_seed(s, n) for s in range(20) for n in "abcde"}) == 100


def test_state_goes_on_where_it_was():
    state = random.RandomState(9)
    state.next_seed()
    saved, copied = state.state_dict(), state.copy()
    expected = [state.next_seed() for _ in range(3)]
    other = random.RandomState()
    other.load_state_dict(saved)
    assert [other.next_seed() for _ in range(3)] == expected
    assert [copied.next_seed() for _ in range(3)] == expected


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"seed": 1},
        {"seed": 1, "drawn": -1},
        {"seed": 1, "drawn": 0.5},
        {"seed": "1", "drawn": 0},
    ],
)
def test_a_wrong_state_is_an_error(bad):
    with pytest.raises(longnet.CheckpointError, match="random state"):
        random.RandomState().load_state_dict(bad)


def fail_inside(state: random.RandomState) -> None:
    with random.use(state):
        assert random.current() is state
        raise KeyError


def test_use_is_undone():
    outer, inner = random.RandomState(1), random.RandomState(2)
    default = random.current()
    with random.use(outer):
        with pytest.raises(KeyError):
            fail_inside(inner)
        assert random.current() is outer
    assert random.current() is default
