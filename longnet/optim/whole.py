"""The state of an optimizer that has its parameters for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from longnet._core import Tensor, ops
from longnet.functional.buffers import cast_to, zeros
from longnet.nn import Parameter
from longnet.optim.clip import factor_of


@dataclass(frozen=True)
class Piece:
    """Consecutive elements of a parameter, from its element `first` on, and what updates them."""

    parameter: Parameter
    first: int
    weight: Tensor
    m: Tensor
    v: Tensor
    rounded: Tensor | None
    gradient: Tensor


class Whole:
    """Moments of all of each parameter; gradients stay where the tape leaves them.

    Parameters
    ----------
    parameters : sequence of Parameter
    dtype : str
        Of `Parameter.rounded`; there is none where this is float32.
    """

    def __init__(self, parameters: Sequence[Parameter], dtype: str) -> None:
        self._parameters = parameters
        for p in parameters:
            p.store = None
            p.rounded = None if dtype == "float32" else cast_to(p.data, dtype)
        self._moments = [(zeros(p.shape, p.data), zeros(p.shape, p.data)) for p in parameters]

    def gradients_final(self) -> AbstractContextManager[None]:
        """Return a context manager that does nothing."""
        return nullcontext()

    def clip_factor(self, max_norm: float, divisor: float) -> tuple[Tensor, Tensor]:
        """Find the factor and the norm of all gradients."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        return factor_of(gradients, max_norm, divisor)

    def update(self, step: Callable[[Piece], None]) -> None:
        """Call `step` on every parameter that has a gradient."""
        for p, (m, v) in zip(self._parameters, self._moments, strict=True):
            if p.grad is not None:
                step(Piece(p, 0, p.data, m, v, p.rounded, p.grad))

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for p in self._parameters:
            p.grad = None

    def moments(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield all moments by name; on the CPU their own memory."""
        for name, tensor in self._named():
            yield name, tensor.to("cpu").numpy()

    def load_moments(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take all moments from `arrays`, which have been checked."""
        for name, tensor in self._named():
            array = Tensor(np.ascontiguousarray(arrays[name]))
            ops.cast(tensor, array.to(tensor.device))

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for p, moments in zip(self._parameters, self._moments, strict=True):
            for letter, moment in zip("mv", moments, strict=True):
                yield f"{p.name}.{letter}", moment
