"""The base of everything that has parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.autograd import no_grad
from longnet.errors import CheckpointError
from longnet.nn.parameter import Parameter

_BLOCK = 1 << 20  # elements looked at together when weights are checked


class Module:
    """A part of a model: parameters and other modules, which are its attributes.

    An attribute that is a `Parameter`, a `Module` or a list of modules belongs to the module, under
    the attribute's name and, in a list, the position: ``blocks.0.norm.weight``. The order is that
    in which the attributes were set. A subclass defines `forward`, which calling the module runs.

    Attributes
    ----------
    training : bool
        Whether dropout is active; set by `train` and `eval`.
    """

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the module is for."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def _members(self) -> Iterator[tuple[str, Parameter | Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter | Module):
                yield name, value
            elif isinstance(value, list):
                for i, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{i}", item

    def _all_parameters(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        for name, member in self._members():
            if isinstance(member, Parameter):
                yield prefix + name, member
            else:
                yield from member._all_parameters(f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield all parameters with their names; one that is shared, under its first name only."""
        seen = set()
        for name, parameter in self._all_parameters(""):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield all parameters, in the order of `named_parameters`."""
        for _, parameter in self.named_parameters():
            yield parameter

    def num_parameters(self) -> int:
        """Return the number of elements of all parameters."""
        return sum(parameter.data.size for parameter in self.parameters())

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Module:
        """Switch dropout on, or off with `mode` False; return the module."""
        self.training = mode
        for _, member in self._members():
            if isinstance(member, Module):
                member.train(mode)
        return self

    def eval(self) -> Module:
        """Switch dropout off; return the module."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Neither dropout nor a tape inside the ``with`` block; the mode comes back after."""
        training = self.training
        if training:
            self.eval()
        try:
            with no_grad():
                yield
        finally:
            if training:
                self.train()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the weights by name; on the CPU the arrays are the parameters' own memory."""
        return {
            name: parameter.data.to("cpu").numpy() for name, parameter in self.named_parameters()
        }

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Copy weights into the parameters, all of them or, on an error, none.

        Parameters
        ----------
        arrays : mapping of str to array
            As `state_dict` gives them; float32, float16 or bfloat16.

        Raises
        ------
        CheckpointError
            A name is missing or unknown, a shape or dtype is another, or a value is not finite.
        """
        parameters = dict(self.named_parameters())
        for name in parameters:
            if name not in arrays:
                raise CheckpointError(f"{name}: not found, expected {parameters[name].shape}")
        for name, array in arrays.items():
            if name not in parameters:
                raise CheckpointError(f"{name}: found, expected no weight of this name")
            _check(name, array, parameters[name].shape)
        for name, parameter in parameters.items():
            weights = Tensor(np.ascontiguousarray(arrays[name]))
            ops.cast(parameter.data, weights.to(parameter.data.device))
            parameter.refresh()


def _check(name: str, array: object, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise CheckpointError(f"{name}: found {type(array).__name__}, expected an array")
    if array.shape != shape:
        raise CheckpointError(f"{name}: found shape {array.shape}, expected {shape}")
    if str(array.dtype) not in ("float32", "float16", "bfloat16"):
        raise CheckpointError(f"{name}: found {array.dtype}, expected float32, float16 or bfloat16")
    flat = array.reshape(-1)
    for begin in range(0, flat.size, _BLOCK):
        bad = ~np.isfinite(flat[begin : begin + _BLOCK])
        if bad.any():
            where = np.unravel_index(begin + int(bad.argmax()), shape)
            index = ", ".join(str(int(i)) for i in where)
            value = float(array[where])
            raise CheckpointError(f"{name}[{index}]: found {value}, expected finite weights")
