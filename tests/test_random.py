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


def test_ranks_share_what_they_must():
    """Shared seeds are one group's, others one rank's, whatever a rank has drawn of the latter."""
    ranks = [random.RandomState(3, stream=rank, group=rank // 2) for rank in range(4)]
    for rank, state in enumerate(ranks):
        for _ in range(rank):
            state.next_seed()
    shared = [state.next_shared_seed() for state in ranks]
    assert shared[0] == shared[1] != shared[2] == shared[3]
    own = [state.next_seed() for state in ranks]
    assert len({*own, *shared}) == 6
    forks = [state.fork() for state in (random.RandomState(3, 5, stream=s) for s in (0, 1))]
    assert forks[0].next_shared_seed() == forks[1].next_shared_seed() not in shared
    assert forks[0].next_seed() != forks[1].next_seed()


def test_a_fork_moves_the_state_by_one():
    a, b = random.RandomState(3), random.RandomState(3)
    for _ in range(5):
        a.fork().next_seed()
    for state in (b.fork() for _ in range(5)):
        for _ in range(7):
            state.next_seed()
            state.next_shared_seed()
    assert a.state_dict() == b.state_dict()
    assert a.next_seed() == b.next_seed()


def test_a_state_is_that_of_any_rank():
    state, other = random.RandomState(3, 4, 5, stream=1), random.RandomState(stream=1, group=1)
    other.load_state_dict(random.RandomState(3, 4, 5).state_dict())
    assert other.next_seed() == state.next_seed()
    assert other.next_shared_seed() != state.next_shared_seed()
    other.load_state_dict({"seed": 3, "drawn": 4})  # of one process, before there were several
    assert other.state_dict() == {"seed": 3, "drawn": 4, "shared": 0}


def test_state_goes_on_where_it_was():
    state = random.RandomState(9)
    state.next_seed()
    state.next_shared_seed()
    saved, copied = state.state_dict(), state.copy()
    expected = [state.next_seed(), state.next_shared_seed(), state.next_seed()]
    other = random.RandomState()
    other.load_state_dict(saved)
    assert [other.next_seed(), other.next_shared_seed(), other.next_seed()] == expected
    assert [copied.next_seed(), copied.next_shared_seed(), copied.next_seed()] == expected


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"seed": 1},
        {"seed": 1, "drawn": -1},
        {"seed": 1, "drawn": 0.5},
        {"seed": "1", "drawn": 0},
        {"seed": 1, "drawn": 0, "shared": -1},
        {"seed": 1, "drawn": 0, "stream": 1},
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
