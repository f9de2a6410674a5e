"""The op fill against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, check_contract, check_offsets, poison
from reference.fill import fill

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [0.0, -1.7, np.inf, np.nan])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7), (1024,), (3, 33_333)])
def test_values(shape, value, dtype):
    (out,) = Call("fill", {"out": poison(*shape, dtype=dtype)}, {"value": value})()
    exact = fill(shape, value).astype(np.float32).astype(dtype).astype(float)
    assert np.array_equal(out.astype(float), exact, equal_nan=True)


def test_contract():
    check_contract(Call("fill", {"out": poison(700, 131)}, {"value": 1.5}), any_shape=("out",))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(dtype):
    check_offsets(Call("fill", {"out": poison(700, 136, dtype=dtype)}, {"value": 1.5}))
