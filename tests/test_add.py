"""The op add against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.add import add

pytestmark = pytest.mark.usefixtures("device")


def make(rng, shape=(700, 131), dtype=np.float32, alpha=-0.7):
    x, y = (np.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    return Call("add", {"out": poison(*shape, dtype=dtype)}, {"x": x, "y": y, "alpha": alpha})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (5, 7), (3, 341), (1024,), (2, 3, 33_333)])
def test_values(rng, dtype, shape):
    call = make(rng, shape, dtype)
    assert_close(call()[0], add(**call.inputs))


@pytest.mark.parametrize("name", ["x", "y"])
def test_in_place(rng, name):
    call = make(rng)
    place = call.inputs[name].copy()
    call(out=place, **{name: place})
    assert np.array_equal(place, call()[0])


def test_contract(rng):
    check_contract(make(rng))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (700, 136), dtype))
