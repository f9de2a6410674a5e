"""The ops embedding and embedding_backward against their reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, check_offsets, poison
from reference import embedding as reference

import longnet

pytestmark = pytest.mark.usefixtures("device")
SHAPES = [
    ((7, 5), (3, 4)),
    ((300, 1), (1000,)),
    ((50, 129), (2, 31)),
    ((9, 16), (0,)),
    ((1, 3), ()),
    ((50_304, 8), (3000,)),
]


def make_inputs(rng, table, shape, dtype, index):
    weight = rng.standard_normal(table).astype(dtype)
    tokens = np.asarray(rng.integers(0, table[0], shape), index)
    return {"weight": weight, "tokens": tokens, "scale": 1.5}


def make(rng, table=(300, 131), shape=(5, 140), dtype=np.float32, index=np.int32):
    inputs = make_inputs(rng, table, shape, dtype, index)
    return Call("embedding", {"out": poison(*shape, table[1], dtype=dtype)}, inputs)


def make_backward(rng, table=(300, 131), shape=(5, 140), dtype=np.float32, index=np.int32):
    inputs = make_inputs(rng, table, shape, dtype, index)
    dout = rng.standard_normal((*shape, table[1])).astype(dtype)
    dweight = inputs.pop("weight")
    return Call("embedding_backward", {"dweight": dweight}, {"dout": dout, **inputs})


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("table", "shape"), SHAPES)
def test_values(rng, table, shape, dtype, index):
    call = make(rng, table, shape, dtype, index)
    assert_close(call()[0], reference.forward(**call.inputs))
    call = make_backward(rng, table, shape, dtype, index)
    assert_close(call()[0], reference.backward(**call.outputs, **call.inputs))


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_token_everywhere(rng, dtype):
    """A half-precision gradient is added up in float32 and rounded once, or kept in float32."""
    call = make_backward(rng, (5, 40), (10_000,), dtype)
    call.inputs["tokens"][:] = 3
    term = 1.5 * np.abs(call.inputs["dout"].astype(float)).sum(axis=0)
    for dweight in (call.outputs["dweight"], call.outputs["dweight"].astype(np.float32)):
        call.outputs["dweight"] = dweight
        assert_close(call()[0], reference.backward(**call.outputs, **call.inputs), term=term)


@pytest.mark.parametrize("dtype", FLOATS)
def test_tokens_of_very_different_frequency(rng, dtype):
    """Some tokens have thousands of positions, most a few or none; sums have a fixed order."""
    call = make_backward(rng, (700, 264), (9_001,), dtype)
    common = rng.random(9_001) < 0.5
    call.inputs["tokens"][common] = rng.choice([3, 699, 17], int(common.sum()), p=[0.7, 0.2, 0.1])
    term = call.outputs["dweight"].astype(float)
    np.add.at(term, call.inputs["tokens"], 1.5 * np.abs(call.inputs["dout"].astype(float)))
    for dweight in (call.outputs["dweight"], call.outputs["dweight"].astype(np.float32)):
        call.outputs["dweight"] = dweight
        (found,) = call()
        assert_close(found, reference.backward(**call.outputs, **call.inputs), term=term)
        assert np.array_equal(found, call()[0])


def test_reference_gradient(rng):
    inputs = make_inputs(rng, (7, 5), (4, 6), float, int)
    dout = rng.standard_normal((4, 6, 5))
    zeros = np.zeros((7, 5))
    dweight = reference.backward(zeros, dout, inputs["tokens"], inputs["scale"])
    assert_gradients(reference.forward, inputs, dout, {"weight": dweight}, rng)


@pytest.mark.parametrize("make", [make, make_backward])
@pytest.mark.parametrize(("index", "token"), [(np.int32, 300), (np.int32, -1), (np.int64, 2**40)])
def test_token_out_of_range(rng, device, make, index, token):
    """An error on the CPU; a GPU, which cannot wait to look, looks nothing up: NaN, or no sum."""
    call = make(rng, index=index)
    clean = call()[0]
    call.inputs["tokens"][4, 2] = token
    if device != "cpu":
        changed = call()[0]
        if call.op == "embedding":
            assert np.isnan(changed[4, 2]).all()
            changed[4, 2] = clean[4, 2]
            assert np.array_equal(changed, clean)
        else:
            keep = np.ones((5, 140), bool)
            keep[4, 2] = False
            inputs = {**call.inputs, "tokens": call.inputs["tokens"][keep]}
            inputs["dout"] = inputs["dout"][keep]
            assert_close(changed, reference.backward(**call.outputs, **inputs))
        return
    expected = f"{call.op}: tokens: element 562 is {token}, expected 0 to 299"
    with pytest.raises(longnet.ConfigError, match=expected):
        call()


@pytest.mark.parametrize("dtype", FLOATS[1:])
@pytest.mark.parametrize("width", [131, 768])
def test_half_precision_rows_of_a_float32_table(rng, width, dtype):
    call = make(rng, (300, width))
    (rows,) = call()
    call.outputs["out"] = poison(5, 140, width, dtype=dtype)
    assert np.array_equal(call()[0], rows.astype(dtype))


def test_dtypes_that_do_not_fit(rng):
    call = make(rng, dtype=np.float16)
    out = poison(5, 140, 131)
    with pytest.raises(longnet.DTypeError, match="out: dtype float32, expected float16"):
        call(out=out)
    call = make_backward(rng)
    dweight = np.zeros((300, 131), np.float16)
    with pytest.raises(longnet.DTypeError, match="dweight: dtype float16, expected float32"):
        call(dweight=dweight)


def test_contract(rng):
    for call in (make(rng), make_backward(rng)):
        check_contract(call)
        check_offsets(call)
