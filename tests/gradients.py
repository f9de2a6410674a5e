"""Checks of an op on the tape: its value and its gradients against a float64 function."""

from collections.abc import Callable, Sequence

import numpy as np
from ops import Call

from longnet import Tensor
from longnet.autograd import Variable

# float32 rounds to 6e-8 of a term. A result is off by about that much of the sum of its terms,
# a few times over where several roundings follow each other; no term is cancelled in this bound.
TOLERANCE = 5e-6

STEP = 1e-5  # of central differences in float64: their own error is about STEP ** 2


def put(array: np.ndarray) -> Tensor:
    """A copy on the device that the fixture `device` chose."""
    return Tensor(np.array(array)).to(Call.device)


def back(tensor: Tensor) -> np.ndarray:
    """What a tensor of any device holds."""
    return tensor.to("cpu").numpy()


def variable(array: np.ndarray) -> Variable:
    """A leaf that wants a gradient, over a float32 copy."""
    return Variable(put(np.asarray(array, np.float32)), requires_grad=True)


def directional(
    function: Callable[[list[np.ndarray]], float],
    arrays: Sequence[np.ndarray],
    index: int,
    direction: np.ndarray,
) -> float:
    """How `function` of float64 arrays changes when one of them moves along `direction`."""

    def at(step: float) -> float:
        moved = [np.asarray(x, np.float64) for x in arrays]
        moved[index] = moved[index] + step * direction
        return function(moved)

    return (at(STEP) - at(-STEP)) / (2 * STEP)


def check_op(
    op: Callable[..., Variable],
    reference: Callable[..., np.ndarray],
    arrays: Sequence[np.ndarray],
    rng: np.random.Generator,
    *,
    tolerance: float = TOLERANCE,
) -> None:
    """Assert that `op` gives what `reference` gives, and the gradients that belong to it.

    Gradients are compared along random directions, with central differences of the float64
    reference.
    """
    arrays = [np.asarray(x, np.float32) for x in arrays]
    inputs = [variable(x) for x in arrays]
    out = op(*inputs)
    expected = reference(*[x.astype(np.float64) for x in arrays])
    assert out.shape == expected.shape
    np.testing.assert_allclose(
        back(out.data), expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )
    dout = rng.standard_normal(expected.shape).astype(np.float32)
    out.backward(put(dout))
    for index, (x, array) in enumerate(zip(inputs, arrays, strict=True)):
        assert x.grad.shape == x.shape
        for _ in range(3):
            direction = rng.standard_normal(array.shape)
            change = directional(
                lambda moved: float((reference(*moved) * dout).sum()), arrays, index, direction
            )
            terms = back(x.grad) * direction
            error = abs(terms.sum(dtype=np.float64) - change)
            assert error <= tolerance * np.abs(terms).sum() + 1e-8, (index, error, change)
