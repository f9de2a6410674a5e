"""layer_norm and rms_norm with a residual, and of GELU, against the ops one by one."""

import numpy as np
import pytest
import test_layer_norm
import test_rms_norm
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference import gelu, layer_norm, rms_norm

import longnet

pytestmark = pytest.mark.usefixtures("device")
REFERENCES = {"layer_norm": layer_norm, "rms_norm": rms_norm}
MAKERS = {"layer_norm": test_layer_norm, "rms_norm": test_rms_norm}
SHAPES = [(4,), (0, 3), (3, 7), (37, 192), (11, 769), (40, 768), (9, 3072), (1, 40_001)]

each_op = pytest.mark.parametrize("op", sorted(MAKERS))
each_dtype = pytest.mark.parametrize("dtype", FLOATS)
each_shape = pytest.mark.parametrize("shape", SHAPES)


def make(rng, op, shape=(700, 131), dtype=np.float32):
    """With a residual."""
    call = MAKERS[op].make(rng, shape, dtype)
    call.inputs["residual"] = rng.standard_normal(shape).astype(dtype)
    call.outputs["sum"] = poison(*shape, dtype=dtype)
    return call


def make_gelu(rng, op, shape=(700, 131), dtype=np.float32):
    call = MAKERS[op].make(rng, shape, dtype)
    call.inputs["gelu"] = True
    return call


def make_backward(rng, op, shape=(700, 131), dtype=np.float32, **more):
    call = MAKERS[op].make_backward(rng, shape, dtype)
    call.inputs |= more
    return call


def of_gelu(rng, op, shape=(700, 131), dtype=np.float32):
    """The gradient of norm(gelu(x)), whose statistics are those of gelu(x)."""
    call = make_backward(rng, op, shape, dtype, gelu=True)
    h, eps = gelu.forward(call.inputs["x"]), MAKERS[op].EPS
    if op == "layer_norm":
        _, call.inputs["mean"], call.inputs["rstd"] = layer_norm.normalise(h, eps)
    else:
        call.inputs["rstd"] = rms_norm.forward(h, call.inputs["weight"], eps)[1]
    for name in {"mean", "rstd"} & call.inputs.keys():
        call.inputs[name] = np.asarray(call.inputs[name], np.float32)
    return call


@each_op
@each_dtype
@each_shape
def test_residual_gives_the_bits_of_add_and_norm(rng, op, shape, dtype):
    call = make(rng, op, shape, dtype)
    *norm, total = call()
    inputs = dict(call.inputs)
    x, residual = inputs.pop("x"), inputs.pop("residual")
    expected = (x.astype(np.float32) + residual.astype(np.float32)).astype(dtype)
    assert np.array_equal(total, expected)
    outputs = {name: array for name, array in call.outputs.items() if name != "sum"}
    for fused, alone in zip(norm, Call(op, outputs, {**inputs, "x": expected})(), strict=True):
        assert np.array_equal(fused, alone)


@each_op
@each_dtype
@pytest.mark.parametrize("place", ["x", "residual"])
@pytest.mark.parametrize("width", [131, 768, 40_000])
def test_sum_in_place(rng, op, dtype, place, width):
    call = make(rng, op, (7, width), dtype)
    *_, total = call()
    memory = call.inputs[place].copy()
    call(**{place: memory, "sum": memory})
    assert np.array_equal(memory, total)


@each_op
@each_dtype
@each_shape
def test_dsum_is_added_to_dx(rng, op, shape, dtype):
    dsum = rng.standard_normal(shape).astype(dtype)
    call = make_backward(rng, op, shape, dtype, dsum=dsum)
    dy, x, weight, rstd = (call.inputs[name] for name in ("dy", "x", "weight", "rstd"))
    exact = REFERENCES[op].backward(dy, x, weight, MAKERS[op].EPS)[0] + dsum
    term = np.abs(dy.astype(float) * weight.astype(float) * rstd[..., None])
    dx, *vectors = call()
    assert_close(dx, exact, term=term + np.abs(dsum.astype(float)))
    _, *alone = call(dsum=None)
    for fused, vector in zip(vectors, alone, strict=True):
        assert np.array_equal(fused, vector)


@each_op
@each_dtype
def test_dsum_in_place(rng, op, dtype):
    place = rng.standard_normal((9, 768)).astype(dtype)
    call = make_backward(rng, op, (9, 768), dtype, dsum=place.copy())
    dx, *_ = call()
    call(dx=place, dsum=place)
    assert np.array_equal(place, dx)


@each_op
@each_dtype
@each_shape
def test_norm_of_gelu(rng, op, shape, dtype):
    call = make_gelu(rng, op, shape, dtype)
    inputs = {name: a for name, a in call.inputs.items() if name not in ("x", "gelu")}
    exact = REFERENCES[op].forward(gelu.forward(call.inputs["x"]), **inputs)
    for computed, value in zip(call(), exact, strict=True):
        assert_close(computed, value)


@each_op
@each_dtype
@each_shape
def test_gradient_of_norm_of_gelu(rng, op, shape, dtype):
    call = of_gelu(rng, op, shape, dtype)
    dy, x, weight, rstd = (call.inputs[name] for name in ("dy", "x", "weight", "rstd"))
    h, rows = gelu.forward(x), tuple(range(len(shape) - 1))
    dh, *vectors = REFERENCES[op].backward(dy, h, weight, MAKERS[op].EPS)
    dx, *computed = call()
    assert_close(dx, gelu.backward(dh, x), term=dy * weight.astype(float) * rstd[..., None])
    n = (h - call.inputs["mean"][..., None] if op == "layer_norm" else h) * rstd[..., None]
    for found, exact in zip(computed, vectors, strict=True):
        assert_close(found, exact, term=np.abs(dy * (np.abs(n) + 1)).sum(axis=rows))


@each_op
def test_gelu_in_place(rng, op):
    for call, pairs in [
        (make_gelu(rng, op), [("y", "x")]),
        (of_gelu(rng, op), [("dx", "x"), ("dx", "dy")]),
    ]:
        for output, name in pairs:
            place = call.inputs[name].copy()
            call(**{output: place, name: place})
            assert np.array_equal(place, call()[0])


@each_op
def test_what_does_not_go_together(rng, op):
    call = make(rng, op, (3, 5))
    with pytest.raises(longnet.ConfigError, match=f"{op}: residual without sum, expected both"):
        call(sum=None)
    with pytest.raises(longnet.ConfigError, match=f"{op}: sum without residual, expected both"):
        call(residual=None)
    with pytest.raises(longnet.ConfigError, match="residual and gelu, expected one of them"):
        call(gelu=True)


@each_op
def test_contract(rng, op):
    dsum = rng.standard_normal((700, 131)).astype(np.float32)
    check_contract(make(rng, op))
    check_contract(make_gelu(rng, op))
    check_contract(make_backward(rng, op, dsum=dsum))
    check_contract(of_gelu(rng, op))
    for call in (make(rng, op, (5, 64)), of_gelu(rng, op, (5, 64))):
        check_offsets(call)
