"""The ops swiglu and swiglu_backward against their reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, check_offsets, poison
from reference import swiglu as reference

pytestmark = pytest.mark.usefixtures("device")
SHAPES = [(), (1,), (0, 3), (5, 7), (3, 341), (1024,), (2, 5, 333)]


def make(rng, shape=(700, 131), dtype=np.float32):
    gate, up = (np.asarray(rng.standard_normal(shape) * size, dtype) for size in (3, 1))
    inputs = {"gate": gate, "up": up}
    return Call("swiglu", {"y": poison(*shape, dtype=dtype)}, inputs)


def make_backward(rng, shape=(700, 131), dtype=np.float32):
    outputs = {name: poison(*shape, dtype=dtype) for name in ("dgate", "dup")}
    dy = np.asarray(rng.standard_normal(shape), dtype)
    return Call("swiglu_backward", outputs, {"dy": dy, **make(rng, shape, dtype).inputs})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values(rng, dtype, shape):
    call, backward = make(rng, shape, dtype), make_backward(rng, shape, dtype)
    assert_close(call()[0], reference.forward(**call.inputs))
    for computed, exact in zip(backward(), reference.backward(**backward.inputs), strict=True):
        assert_close(computed, exact)


def test_every_value_to_six_digits():
    gate = np.linspace(-86, 87, 20_000, dtype=np.float32)
    up = np.ones_like(gate)
    (y,) = Call("swiglu", {"y": poison(gate.size)}, {"gate": gate, "up": up})()
    assert np.abs(y / reference.forward(gate, up) - 1).max() < 1e-6


def test_limits():
    gate = np.array([-np.inf, -1e30, 0, 1e30, np.inf, np.nan], np.float32)
    one, big = np.ones_like(gate), np.float32(1e30)
    (y,) = Call("swiglu", {"y": poison(6)}, {"gate": gate, "up": one})()
    outputs = {"dgate": poison(6), "dup": poison(6)}
    dgate, dup = Call("swiglu_backward", outputs, {"dy": one, "gate": gate, "up": one})()
    assert np.array_equal(y, [0, 0, 0, big, np.inf, np.nan], equal_nan=True)
    assert np.array_equal(dup, y, equal_nan=True)
    assert np.array_equal(dgate, [0, 0, 0.5, 1, 1, np.nan], equal_nan=True)


def test_reference_gradient(rng):
    gate, up, dy = rng.standard_normal((3, 3, 11))
    gradients = dict(zip(("gate", "up"), reference.backward(dy, gate, up), strict=True))
    assert_gradients(reference.forward, {"gate": gate, "up": up}, dy, gradients, rng)


def test_in_place(rng):
    call = make_backward(rng)
    dy, gate, up = (x.copy() for x in call.inputs.values())
    call(dgate=gate, dup=up, dy=dy, gate=gate, up=up)
    assert np.array_equal([gate, up], call())


def test_contract(rng):
    check_contract(make(rng))
    check_contract(make_backward(rng))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (700, 136), dtype))
    check_offsets(make_backward(rng, (700, 136), dtype))
