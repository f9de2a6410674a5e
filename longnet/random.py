"""Seeds: where the random numbers of the ops come from.

The ops draw from a counter-based generator, so that a seed is all they need. A `RandomState` hands
out one seed after another; its own state is two numbers, which a checkpoint stores.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b

from longnet.arguments import integer
from longnet.errors import CheckpointError


def derive_seed(seed: int, name: object) -> int:
    """Return the seed, 0 .. 2^64 - 1, that belongs to `name` under `seed`: a hash of the two."""
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")


class RandomState:
    """A sequence of seeds.

    Parameters
    ----------
    seed : int
        Which sequence.
    drawn : int
        How many of its seeds have been taken.
    """

    def __init__(self, seed: int = 0, drawn: int = 0) -> None:
        self.seed = integer("seed", seed)
        self.drawn = integer("drawn", drawn)

    def next_seed(self) -> int:
        """Take the next seed, 0 .. 2^64 - 1."""
        self.drawn += 1
        return derive_seed(self.seed, self.drawn)

    def copy(self) -> "RandomState":
        """Return a state that gives the same seeds from here on."""
        return RandomState(self.seed, self.drawn)

    def state_dict(self) -> dict[str, int]:
        """Return the two numbers that `load_state_dict` takes."""
        return {"seed": self.seed, "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where `state_dict` was called.

        Raises
        ------
        CheckpointError
            `state` is something else.
        """
        if set(state) != {"seed", "drawn"}:
            raise CheckpointError(f"random state: keys {sorted(state)}, expected drawn, seed")
        if not all(type(value) is int for value in state.values()) or state["drawn"] < 0:
            raise CheckpointError(f"random state: {dict(state)}, expected integers, drawn >= 0")
        self.seed, self.drawn = state["seed"], state["drawn"]


_current: ContextVar[RandomState | None] = ContextVar("random_state", default=None)
_default = RandomState()


def current() -> RandomState:
    """Return the state that seeds are taken from: the innermost `use`, else a default one."""
    return _current.get() or _default


@contextmanager
def use(state: RandomState) -> Iterator[None]:
    """Take seeds from `state` inside the ``with`` block."""
    token = _current.set(state)
    try:
        yield
    finally:
        _current.reset(token)
