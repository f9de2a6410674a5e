"""Weights, and how they begin."""

from collections.abc import Iterable, Sequence

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional import cast
from longnet.functional.buffers import cast_to
from longnet.random import derive_seed


class Parameter(Variable):
    """A weight: a float32 leaf that wants a gradient.

    Its memory is not set before `initialise` or `Module.load_state_dict`.

    Parameters
    ----------
    shape : sequence of int
    mean, std : float
        Of the normal distribution that `initialise` draws from; a constant where `std` is 0.
    device : str

    Attributes
    ----------
    name : str
        Its name in the model; empty before `initialise`.
    mean, std : float
    rounded : Tensor or None
        The weight in the dtype of activations, where an optimizer keeps it up to date. Whoever
        writes to `data` calls `refresh` then.
    """

    __slots__ = ("mean", "name", "rounded", "std")

    def __init__(
        self, shape: Sequence[int], *, mean: float = 0.0, std: float = 0.0, device: str = "cpu"
    ) -> None:
        super().__init__(Tensor.empty(shape, "float32", device), requires_grad=True)
        self.name = ""
        self.mean = mean
        self.std = std
        self.rounded: Tensor | None = None

    def refresh(self) -> None:
        """Round `data` to `rounded` anew, to the nearest."""
        if self.rounded is not None:
            ops.cast(self.rounded, self.data)

    def in_dtype(self, dtype: str) -> Variable:
        """Return the weight in the dtype of activations, on the tape."""
        if self.rounded is None or self.rounded.dtype != dtype:
            return cast(self, dtype)
        stored = self.store is not None

        def backward(dy: Tensor) -> list[Tensor]:
            if stored and self.grad is None:
                return [dy]  # `store` casts it on the way to its place
            return [cast_to(dy, self.dtype)]

        return record(self.rounded, [self], backward, passes=stored)


def initialise(parameters: Iterable[tuple[str, Parameter]], seed: int) -> None:
    """Give all weights of a model their names and first values.

    Parameters
    ----------
    parameters : iterable of (str, Parameter)
        As `Module.named_parameters` gives them. What is drawn depends on the name, the shape and
        `seed`, not on the order or on the other parameters.
    seed : int
    """
    for name, parameter in parameters:
        parameter.name = name
        if parameter.std == 0.0:
            ops.fill(parameter.data, parameter.mean)
        else:
            ops.normal(parameter.data, parameter.mean, parameter.std, derive_seed(seed, name))
        parameter.refresh()
