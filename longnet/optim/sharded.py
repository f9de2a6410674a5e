"""The state of an optimizer whose parameters are the same on all ranks (ZeRO, arXiv 1910.02054).

Gradients are summed over the ranks, bucket by bucket, while the backward pass goes on. Each rank
updates its slice of every bucket, and has moments of no more than that; then all get the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from longnet._core import Tensor
from longnet.autograd import Variable
from longnet.communicator import Communicator
from longnet.errors import DeviceError, LongNetError
from longnet.finality import watching
from longnet.nn import Parameter
from longnet.optim.buckets import Bucket, group
from longnet.optim.clip import factor_of
from longnet.optim.whole import Piece


class Sharded:
    """Moments of a slice of all parameters; their weights and gradients lie in `Bucket` memory.

    Parameters
    ----------
    parameters : sequence of Parameter
        Their order decides that of the transfers.
    dtype : str
        Of `Parameter.rounded`; there is none where this is float32.
    comm : Communicator
        Of all ranks that have these parameters.
    settings : mapping
        What else must be the same on all ranks, by name; has ``stochastic_rounding``.

    Raises
    ------
    DeviceError
        A parameter is not on the communicator's device.
    ConfigError
        On every rank, where they differ.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        dtype: str,
        comm: Communicator,
        settings: Mapping[str, object],
    ) -> None:
        _agree(parameters, comm, {"dtype": dtype, **settings})
        self._parameters = parameters
        self._comm = comm
        stochastic = bool(settings["stochastic_rounding"])
        self._buckets = [Bucket(each, comm, dtype, stochastic) for each in group(parameters)]
        self._homes: dict[Variable, tuple[int, int]] = {
            p: (number, i)  # which bucket, which of its parameters
            for number, bucket in enumerate(self._buckets)
            for i, p in enumerate(bucket.parameters)
        }
        self._present: frozenset[str] | None = None  # parameters with a gradient on this rank
        self._updated: frozenset[str] = frozenset()  # and on any
        self._sent, self._found = 0, list[str]()  # buckets; names of parameters with gradients

    @contextmanager
    def gradients_final(self) -> Iterator[None]:
        """Send buckets as the backward pass inside the ``with`` block is done with them."""
        if self._sent:
            raise LongNetError(
                "gradients_final: the gradients of all ranks were summed already, expected "
                "zero_grad() first"
            )
        unfinished: list[set[Variable]] = [set(bucket.parameters) for bucket in self._buckets]

        def final(leaf: Variable) -> None:
            # All ranks send in one order: a bucket waits for those before it.
            unfinished[self._homes[leaf][0]].discard(leaf)
            while self._sent < len(unfinished) and not unfinished[self._sent]:
                self._send_next()

        with watching(self._homes, final):
            yield
        self._send_all()

    def clip_factor(self, max_norm: float, divisor: float) -> tuple[Tensor, Tensor]:
        """Find the factor and the norm of all gradients, the same bits on every rank."""
        self._send_all()
        gradients = []
        for bucket in self._buckets if self._updated else ():
            bucket.receive_gradients()
            gradients.append(bucket.slice)
        return factor_of(gradients, max_norm, divisor, self._comm)

    def update(self, step: Callable[[Piece], None]) -> None:
        """Call `step` on this rank's slices of the parameters that have a gradient; share them."""
        self._send_all()
        sharing = []
        for bucket in self._buckets:
            bucket.receive_gradients()
            for piece in bucket.pieces:
                if piece.parameter.name in self._updated:
                    step(piece)
            sharing.append(bucket.share_weights())
        for complete in sharing:
            complete()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for bucket in self._buckets:
            bucket.zero_grad()
        self._sent, self._found = 0, []

    def moments(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield all moments by name on rank 0 and none on the others; every rank calls it."""
        for p in self._parameters:
            number, i = self._homes[p]
            for letter in "mv":
                array = self._buckets[number].gather_moment(i, letter)
                if array is not None:
                    yield f"{p.name}.{letter}", array

    def load_moments(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take this rank's slices of all moments from `arrays`, which have been checked."""
        for p in self._parameters:
            number, i = self._homes[p]
            for letter in "mv":
                self._buckets[number].load_moment(i, letter, arrays[f"{p.name}.{letter}"])

    def _send_next(self) -> None:
        self._found += [p.name for p in self._buckets[self._sent].send_gradients()]
        self._sent += 1

    def _send_all(self) -> None:
        """Send what has not left yet, and find out which parameters the step updates.

        A rank may have no gradient where another has one. Who has which changes rarely if ever, and
        then on all ranks in one step: they tell each other in the first step and in those, and a
        rank that is alone with a change ends in an error of the communicator.
        """
        while self._sent < len(self._buckets):
            self._send_next()
        present = frozenset(self._found)
        if present != self._present:
            self._present = present
            self._updated = present.union(*self._comm.gather_objects(present))


def _agree(
    parameters: Sequence[Parameter], comm: Communicator, settings: Mapping[str, object]
) -> None:
    """Check with all ranks what they must have in common, before anything is sent."""
    device = next((p.data.device for p in parameters if p.data.device != comm.device), None)
    same = {
        "device": device and f"a parameter on {device}, the communicator on {comm.device}",
        **settings,
        "number of parameters": len(parameters),
        **{f"parameter {i}": (p.name, p.shape) for i, p in enumerate(parameters)},
    }
    others = comm.gather_objects(same)
    for what, value in same.items():
        if any(other.get(what) != value for other in others):
            comm.agree(f"optimizer: {what}", value)
    if device is not None:
        raise DeviceError(f"optimizer: found {same['device']}, expected them on one device")
