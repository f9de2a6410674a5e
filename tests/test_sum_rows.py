"""The op sum_rows against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.sum_rows import sum_rows

pytestmark = pytest.mark.usefixtures("device")


def make(rng, shape=(700, 131), dtype=np.float32):
    x = rng.standard_normal(shape).astype(dtype)
    return Call("sum_rows", {"out": poison(shape[-1], dtype=dtype)}, {"x": x})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(4,), (0, 3), (50_000, 1), (3, 341), (2, 3, 4, 16), (9000, 264)])
def test_values(rng, dtype, shape):
    call = make(rng, shape, dtype)
    assert_close(call()[0], sum_rows(**call.inputs), term=sum_rows(np.abs(call.inputs["x"])))


def test_many_rows_keep_their_digits(rng):
    """Rounding errors that all have one sign: about 64 in each of the three steps of the sum."""
    call = make(rng, (200_000, 3))
    call.inputs["x"][:] = 0.1
    assert_close(call()[0], sum_rows(**call.inputs), 3 * 64 * 2**-25)


def test_contract(rng):
    check_contract(make(rng), any_shape=("x",))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (700, 136), dtype))
