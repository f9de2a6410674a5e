"""The ops layer_norm and layer_norm_backward against their reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, check_offsets, poison
from reference import layer_norm as reference

import longnet

pytestmark = pytest.mark.usefixtures("device")
EPS = 1e-5
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
    x = rng.standard_normal(shape) * 3 + 2
    weight, bias = rng.standard_normal((2, shape[-1]))
    dy = rng.standard_normal(shape)
    return [a.astype(dtype) for a in (x, weight, bias, dy)]


def make(rng, shape=(700, 131), dtype=np.float32):
    x, weight, bias, _ = make_inputs(rng, shape, dtype)
    rows = shape[:-1]
    outputs = {"y": poison(*shape, dtype=dtype), "mean": poison(*rows), "rstd": poison(*rows)}
    return Call("layer_norm", outputs, {"x": x, "weight": weight, "bias": bias, "eps": EPS})


def make_backward(rng, shape=(700, 131), dtype=np.float32):
    x, weight, _, dy = make_inputs(rng, shape, dtype)
    _, mean, rstd = (np.asarray(a, np.float32) for a in reference.normalise(x, EPS))
    vectors = {name: poison(shape[-1], dtype=dtype) for name in ("dweight", "dbias")}
    inputs = {"dy": dy, "x": x, "weight": weight, "mean": mean, "rstd": rstd}
    return Call("layer_norm_backward", {"dx": poison(*shape, dtype=dtype), **vectors}, inputs)


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
    dx, dweight, dbias = reference.backward(dy, x, weight, EPS)
    n, _, rstd = reference.normalise(x, EPS)
    dy, rows = dy.astype(float), tuple(range(dy.ndim - 1))
    results = call()
    assert_close(results[0], dx, term=dy * weight.astype(float) * rstd[..., None])
    assert_close(results[1], dweight, term=np.abs(dy * n).sum(axis=rows))
    assert_close(results[2], dbias, term=np.abs(dy).sum(axis=rows))


def test_reference_gradient(rng):
    x, weight, bias, dy = make_inputs(rng, (3, 4, 9), float)
    gradients = zip(("x", "weight", "bias"), reference.backward(dy, x, weight, EPS), strict=True)
    inputs = {"x": x, "weight": weight, "bias": bias}
    assert_gradients(
        lambda **a: reference.forward(**a, eps=EPS)[0], inputs, dy, dict(gradients), rng
    )


def test_large_mean(rng):
    """The variance is that of the distances to the mean, not a difference of large squares."""
    call = make(rng, (5, 64))
    call.inputs["x"] += 1000
    for computed, exact in zip(call(), reference.forward(**call.inputs), strict=True):
        assert_close(computed, exact, 1e-4)


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
