"""The ops rms_norm and rms_norm_backward against their reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, check_offsets, poison
from reference import rms_norm as reference

import longnet

pytestmark = pytest.mark.usefixtures("device")
EPS = 1e-6
SHAPES = [
    (4,),
    (0, 3),
    (5, 1),
    (3, 7),
    (2, 3, 16),
    (37, 192),
    (11, 769),
    (1, 5000),
    (2, 40_001),
    (300, 768),
    (9, 3072),
    (3, 16_384),
]


def make_inputs(rng, shape, dtype):
    x, dy = rng.standard_normal(shape) * 3 + 1, rng.standard_normal(shape)
    return [a.astype(dtype) for a in (x, rng.standard_normal(shape[-1]), dy)]


def make(rng, shape=(700, 131), dtype=np.float32):
    x, weight, _ = make_inputs(rng, shape, dtype)
    outputs = {"y": poison(*shape, dtype=dtype), "rstd": poison(*shape[:-1])}
    return Call("rms_norm", outputs, {"x": x, "weight": weight, "eps": EPS})


def make_backward(rng, shape=(700, 131), dtype=np.float32):
    x, weight, dy = make_inputs(rng, shape, dtype)
    rstd = np.asarray(reference.forward(x, weight, EPS)[1], np.float32)
    outputs = {"dx": poison(*shape, dtype=dtype), "dweight": poison(shape[-1], dtype=dtype)}
    return Call("rms_norm_backward", outputs, {"dy": dy, "x": x, "weight": weight, "rstd": rstd})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward(rng, dtype, shape):
    call = make(rng, shape, dtype)
    for computed, exact in zip(call(), reference.forward(**call.inputs), strict=True):
        assert_close(computed, exact)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_backward(rng, dtype, shape):
    call = make_backward(rng, shape, dtype)
    dy, x, weight = (call.inputs[name] for name in ("dy", "x", "weight"))
    dx, dweight = reference.backward(dy, x, weight, EPS)
    rstd = reference.forward(x, weight, EPS)[1][..., None]
    dy, n = dy.astype(float), x.astype(float) * rstd
    results = call()
    assert_close(results[0], dx, term=dy * weight.astype(float) * rstd)
    assert_close(results[1], dweight, term=np.abs(dy * n).sum(axis=tuple(range(dy.ndim - 1))))


def test_reference_gradient(rng):
    x, weight, dy = make_inputs(rng, (3, 4, 9), float)
    gradients = zip(("x", "weight"), reference.backward(dy, x, weight, EPS), strict=True)
    inputs = {"x": x, "weight": weight}
    assert_gradients(
        lambda **a: reference.forward(**a, eps=EPS)[0], inputs, dy, dict(gradients), rng
    )


def test_nan_stays_in_its_row(rng):
    call = make(rng, (4, 20))
    clean = call()[0]
    call.inputs["x"][1, 3], call.inputs["x"][2, 5] = np.nan, np.inf
    y = call()[0]
    assert np.isnan(y[1:3]).any(axis=1).all()
    assert np.array_equal(y[[0, 3]], clean[[0, 3]])


def test_in_place(rng):
    call = make(rng)
    place = call.inputs["x"].copy()
    call(y=place, x=place)
    assert np.array_equal(place, call()[0])
    for name in ("dy", "x"):
        call = make_backward(rng)
        place = call.inputs[name].copy()
        call(**{"dx": place, name: place})
        assert np.array_equal(place, call()[0])


@pytest.mark.parametrize("eps", [-1e-5, np.nan])
def test_eps_out_of_range(rng, eps):
    with pytest.raises(longnet.ConfigError, match=r"eps is .*, expected 0 or more"):
        make(rng)(eps=eps)


def test_contract(rng):
    for call in (make(rng), make_backward(rng)):
        check_contract(call)
    for call in (make(rng, (5, 64)), make_backward(rng, (5, 64))):
        check_offsets(call)
