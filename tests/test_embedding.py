"""The ops embedding and embedding_backward against their reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, poison
from reference import embedding as reference

import longnet

SHAPES = [
    ((7, 5), (3, 4)),
    ((300, 1), (1000,)),
    ((50, 129), (2, 31)),
    ((9, 16), (0,)),
    ((1, 3), ()),
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


def test_reference_gradient(rng):
    inputs = make_inputs(rng, (7, 5), (4, 6), float, int)
    dout = rng.standard_normal((4, 6, 5))
    zeros = np.zeros((7, 5))
    dweight = reference.backward(zeros, dout, inputs["tokens"], inputs["scale"])
    assert_gradients(reference.forward, inputs, dout, {"weight": dweight}, rng)


@pytest.mark.parametrize("make", [make, make_backward])
@pytest.mark.parametrize(("index", "token"), [(np.int32, 300), (np.int32, -1), (np.int64, 2**40)])
def test_token_out_of_range(rng, make, index, token):
    call = make(rng, index=index)
    call.inputs["tokens"][4, 2] = token
    expected = f"{call.op}: tokens: element 562 is {token}, expected 0 to 299"
    with pytest.raises(longnet.ConfigError, match=expected):
        call()


def test_dtypes_that_do_not_fit(rng):
    call = make(rng)
    out = poison(5, 140, 131, dtype=np.float16)
    with pytest.raises(longnet.DTypeError, match="out: dtype float16, expected float32"):
        call(out=out)
    call = make_backward(rng)
    dweight = np.zeros((300, 131), np.float16)
    with pytest.raises(longnet.DTypeError, match="dweight: dtype float16, expected float32"):
        call(dweight=dweight)


def test_contract(rng):
    check_contract(make(rng))
    check_contract(make_backward(rng))
