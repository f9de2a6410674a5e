"""The op bias_add against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.bias_add import bias_add

pytestmark = pytest.mark.usefixtures("device")


def make(rng, shape=(700, 131), dtype=np.float32):
    x, bias = (rng.standard_normal(s).astype(dtype) for s in (shape, shape[-1:]))
    return Call("bias_add", {"y": poison(*shape, dtype=dtype)}, {"x": x, "bias": bias})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(4,), (0, 3), (5, 1), (3, 341), (2, 3, 4, 16), (301, 264), (9, 0)]
)
def test_values(rng, dtype, shape):
    call = make(rng, shape, dtype)
    assert_close(call()[0], bias_add(**call.inputs))


def test_in_place(rng):
    call = make(rng)
    place = call.inputs["x"].copy()
    call(y=place, x=place)
    assert np.array_equal(place, call()[0])


def test_contract(rng):
    check_contract(make(rng))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (700, 136), dtype))
