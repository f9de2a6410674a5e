"""The ops gelu and gelu_backward against their reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, check_offsets, poison
from reference import gelu as reference

pytestmark = pytest.mark.usefixtures("device")
SHAPES = [(), (1,), (0, 3), (5, 7), (3, 341), (1024,), (2, 5, 333)]


def make(rng, shape=(700, 131), dtype=np.float32):
    x = np.asarray(rng.standard_normal(shape) * 3, dtype)
    return Call("gelu", {"y": poison(*shape, dtype=dtype)}, {"x": x})


def make_backward(rng, shape=(700, 131), dtype=np.float32):
    dy = np.asarray(rng.standard_normal(shape), dtype)
    x = make(rng, shape, dtype).inputs["x"]
    return Call("gelu_backward", {"dx": poison(*shape, dtype=dtype)}, {"dy": dy, "x": x})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values(rng, dtype, shape):
    call, backward = make(rng, shape, dtype), make_backward(rng, shape, dtype)
    assert_close(call()[0], reference.forward(**call.inputs))
    assert_close(backward()[0], reference.backward(**backward.inputs))


def test_every_value_to_six_digits():
    """Also far below 0, where 1 + erf would have none left."""
    x = np.linspace(-12.9, 30, 20_000, dtype=np.float32)
    (y,) = Call("gelu", {"y": poison(x.size)}, {"x": x})()
    assert np.abs(y / reference.forward(x) - 1).max() < 1e-6


def test_limits():
    x = np.array([-np.inf, -1e30, -50, 0, 50, 1e30, np.inf, np.nan], np.float32)
    (y,) = Call("gelu", {"y": poison(8)}, {"x": x})()
    (dx,) = Call("gelu_backward", {"dx": poison(8)}, {"dy": np.ones_like(x), "x": x})()
    assert np.array_equal(y, [0, 0, 0, 0, 50, np.float32(1e30), np.inf, np.nan], equal_nan=True)
    assert np.array_equal(dx, [0, 0, 0, 0.5, 1, 1, 1, np.nan], equal_nan=True)


def test_reference_gradient(rng):
    x, dy = rng.standard_normal((2, 3, 11))
    gradients = {"x": reference.backward(dy, x)}
    assert_gradients(reference.forward, {"x": x}, dy, gradients, rng)


def test_in_place(rng):
    call = make(rng)
    place = call.inputs["x"].copy()
    call(y=place, x=place)
    assert np.array_equal(place, call()[0])


def test_contract(rng):
    check_contract(make(rng))
    check_contract(make_backward(rng))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (700, 136), dtype))
    check_offsets(make_backward(rng, (700, 136), dtype))
