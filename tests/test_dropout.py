"""The op dropout against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.dropout import dropout

import longnet

pytestmark = pytest.mark.usefixtures("device")


def make(rng, shape=(700, 131), dtype=np.float32, p=0.3, seed=2**40 + 3):
    x = np.asarray(rng.standard_normal(shape), dtype)
    return Call("dropout", {"y": poison(*shape, dtype=dtype)}, {"x": x, "p": p, "seed": seed})


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1 - 2**-33])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 7), (1024,), (3, 33_333)])
def test_values(rng, shape, dtype, p):
    call = make(rng, shape, dtype, p)
    assert_close(call()[0], dropout(**call.inputs), 1e-7)


def test_nothing_dropped_keeps_the_bits(rng):
    call = make(rng, p=0.0)
    assert np.array_equal(call()[0], call.inputs["x"])


def test_share(rng):
    """Of a million elements 30 % are dropped, within 5 standard deviations."""
    dropped = (make(rng, (1_000_000,))()[0] == 0).mean()
    assert abs(dropped - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 1e6)


def test_a_dropped_infinity_is_gone(rng):
    call = make(rng, (1000,))
    dropped = call()[0] == 0
    call.inputs["x"][:] = np.where(dropped, np.inf, 1)
    y = call()[0]
    assert (y[dropped] == 0).all()
    assert np.isfinite(y).all()


@pytest.mark.parametrize("p", [-0.1, 1.0, np.nan])
def test_bad_values(rng, p):
    with pytest.raises(longnet.ConfigError, match=f"dropout: p is {p:g}, expected 0 <= p < 1"):
        make(rng)(p=p)


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
