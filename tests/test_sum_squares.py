"""The op sum_squares against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.sum_squares import sum_squares

pytestmark = pytest.mark.usefixtures("device")


def make(rng, shape=(700, 331), dtype=np.float32):
    x = np.asarray(rng.standard_normal(shape), dtype)
    return Call("sum_squares", {"out": poison(1)}, {"x": x})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7), (1024,), (3, 70_001)])
def test_values(rng, shape, dtype):
    call = make(rng, shape, dtype)
    assert_close(call()[0], sum_squares(**call.inputs), 1e-7)


def test_squares_beyond_float32():
    x = np.full(1000, 1e-30, np.float32)
    assert Call("sum_squares", {"out": poison(1)}, {"x": x})()[0] == pytest.approx(1e-57)
    x[:] = 1e30
    assert Call("sum_squares", {"out": poison(1)}, {"x": x})()[0] == np.inf


def test_nan_is_noticed(rng):
    call = make(rng)
    call.inputs["x"][600, 5] = np.nan
    assert np.isnan(call()[0])


def test_contract(rng):
    check_contract(make(rng), any_shape=("x",))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (700, 136), dtype))
