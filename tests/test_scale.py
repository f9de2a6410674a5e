"""The op scale against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.scale import scale

import longnet

pytestmark = pytest.mark.usefixtures("device")


def make(rng, shape=(700, 131), dtype=np.float32, target=np.float32, factor=-0.7):
    x = np.asarray(rng.standard_normal(shape), dtype)
    number = None if factor is None else np.array([factor], np.float32)
    inputs = {"x": x, "factor": number, "alpha": 0.3}
    return Call("scale", {"out": poison(*shape, dtype=target)}, inputs)


@pytest.mark.parametrize("factor", [None, 1.7])
@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7), (1024,), (2, 33_333)])
def test_values(rng, shape, dtype, target, factor):
    call = make(rng, shape, dtype, target, factor)
    assert_close(call()[0], scale(**call.inputs), 2e-7)


def test_by_one_keeps_the_bits(rng):
    call = make(rng, factor=None)
    assert np.array_equal(call(alpha=1.0)[0], call.inputs["x"])


def test_nan_goes_everywhere(rng):
    assert np.isnan(make(rng, factor=np.nan)()[0]).all()


def test_in_place(rng):
    call = make(rng)
    place = call.inputs["x"].copy()
    call(out=place, x=place)
    assert np.array_equal(place, call()[0])


def test_one_factor(rng):
    with pytest.raises(longnet.ShapeError, match=r"scale: factor: shape \(2,\), expected \(1,\)"):
        make(rng)(factor=np.ones(2, np.float32))


def test_contract(rng):
    check_contract(make(rng))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (700, 136), dtype))
