"""Seeds: where the random numbers of the ops come from.

The ops draw from a counter-based generator, so that a seed is all they need. A `RandomState` hands
out one seed after another; its own state is three numbers, which a checkpoint stores.
"""

from __future__ import annotations

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
    """Two sequences of seeds: of this rank alone, and of all ranks that share its sequences.

    A process that trains alone need not tell them apart.

    Parameters
    ----------
    seed : int
        Which sequences.
    drawn : int
        How many of this rank's seeds have been taken.
    shared : int
        How many of the shared ones.
    stream : int
        Number of this rank among those that train together: each takes other seeds.
    group : int
        Number of the ranks that it shares sequences with: each group shares other seeds.
    """

    def __init__(
        self, seed: int = 0, drawn: int = 0, shared: int = 0, *, stream: int = 0, group: int = 0
    ) -> None:
        self.seed = integer("seed", seed)
        self.drawn = integer("drawn", drawn)
        self.shared = integer("shared", shared)
        self.stream = integer("stream", stream)
        self.group = integer("group", group)

    def next_seed(self) -> int:
        """Take this rank's next seed, 0 .. 2^64 - 1."""
        self.drawn += 1
        return derive_seed(self.seed, f"{self.stream}/{self.drawn}")

    def next_shared_seed(self) -> int:
        """Take the next seed of all ranks in the group, 0 .. 2^64 - 1."""
        self.shared += 1
        return derive_seed(self.seed, f"group {self.group}/{self.shared}")

    def fork(self) -> RandomState:
        """Take one seed for a state of its own, from which any number may be taken: this one has
        moved by the same on every rank."""
        self.drawn += 1
        seed = derive_seed(self.seed, f"fork {self.drawn}")
        return RandomState(seed, stream=self.stream, group=self.group)

    def copy(self) -> RandomState:
        """Return a state that gives the same seeds from here on."""
        return RandomState(self.seed, self.drawn, self.shared, stream=self.stream, group=self.group)

    def state_dict(self) -> dict[str, int]:
        """Return the numbers that `load_state_dict` takes, on any rank; `stream` and `group` are
        the rank's own and not among them."""
        return {"seed": self.seed, "drawn": self.drawn, "shared": self.shared}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where `state_dict` was called.

        Raises
        ------
        CheckpointError
            `state` is something else.
        """
        state = {"shared": 0, **state}  # checkpoints of one process had none
        if set(state) != {"seed", "drawn", "shared"}:
            raise CheckpointError(
                f"random state: keys {sorted(state)}, expected drawn, seed, shared"
            )
        values = list(state.values())
        if (
            not all(type(value) is int for value in values)
            or min(state["drawn"], state["shared"]) < 0
        ):
            raise CheckpointError(f"random state: {state}, expected integers, none drawn below 0")
        self.seed, self.drawn, self.shared = state["seed"], state["drawn"], state["shared"]


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
