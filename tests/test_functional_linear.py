"""linear and embedding on the tape."""

import ml_dtypes
import numpy as np
import pytest
from gradients import back, check_op, put, variable

import longnet
from longnet import functional as F
from longnet.autograd import Variable

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (2, 3, 5), (4,)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(rng, shape, bias):
    arrays = [rng.standard_normal(s) for s in (shape, (6, shape[-1]), (6,))]

    def reference(x, weight, b=0.0):
        return x @ weight.T + b

    check_op(F.linear, reference, arrays if bias else arrays[:2], rng)


def test_linear_takes_no_product_that_nobody_wants(rng, monkeypatch):
    products = []
    actual = F.linear.__globals__["matmul"]

    def counted(*args, **options):
        products.append(options)
        actual(*args, **options)

    monkeypatch.setitem(F.linear.__globals__, "matmul", counted)
    x = Variable(put(rng.standard_normal((3, 4)).astype(np.float32)))
    dy = put(np.ones((3, 2), np.float32))
    F.linear(x, variable(rng.standard_normal((2, 4)))).backward(dy)
    assert products == [
        {"bias": None, "transpose_b": True},
        {"dbias": None, "transpose_a": True},
    ]


@pytest.mark.parametrize("leaf", [False, True])
def test_layers_of_one_input_add_up_their_gradients(rng, leaf):
    def layers(x, *weights):
        x = x if leaf else F.swiglu(x, x)
        y, gate, up = (F.linear(x, weight) for weight in weights)
        return F.add(y, F.swiglu(gate, up))

    def reference(x, *weights):
        x = x if leaf else x * x / (1 + np.exp(-x))
        y, gate, up = (x @ weight.T for weight in weights)
        return y + gate / (1 + np.exp(-gate)) * up

    arrays = [rng.standard_normal(s) for s in ((7, 5), (6, 5), (6, 5), (6, 5))]
    check_op(layers, reference, arrays, rng)


def test_linear_sums_the_gradient_of_a_bias_alone(rng):
    x, weight, dy = (rng.standard_normal(s).astype(np.float32) for s in ((5, 4), (3, 4), (5, 3)))
    bias = variable(np.zeros(3))
    F.linear(Variable(put(x)), Variable(put(weight)), bias).backward(put(dy))
    np.testing.assert_allclose(back(bias.grad), dy.sum(0, dtype=float), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_linear_in_half_precision(rng, dtype):
    x, weight, bias, dy = (
        rng.standard_normal(s).astype(dtype) for s in ((5, 16), (3, 16), (3,), (5, 3))
    )
    inputs = [Variable(put(a), requires_grad=True) for a in (x, weight, bias)]
    y = F.linear(*inputs)
    y.backward(put(dy))
    x64, weight64, dy64 = (a.astype(float) for a in (x, weight, dy))
    expected = [
        x64 @ weight64.T + bias.astype(float),
        dy64 @ weight64,
        dy64.T @ x64,
        dy64.sum(0),
    ]
    eps = float(ml_dtypes.finfo(dtype).eps)
    for found, want in zip([y.data, *(v.grad for v in inputs)], expected, strict=True):
        assert back(found).dtype == dtype
        # rounded once, from sums in float32
        error = np.abs(back(found).astype(float) - want)
        assert (error <= eps / 2 * np.abs(want) + 1e-6 * np.abs(want).max()).all()


def test_linear_names_shapes_that_do_not_fit():
    x, weight = variable(np.zeros((2, 3))), variable(np.zeros((4, 5)))
    with pytest.raises(longnet.ShapeError, match=r"x \(2, 3\) and weight \(4, 5\)"):
        F.linear(x, weight)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_embedding(rng, dtype):
    tokens = rng.integers(0, 5, (3, 7)).astype(dtype)  # each row of the table several times
    check_op(
        lambda weight: F.embedding(tokens, weight, 3.0),
        lambda weight: 3.0 * weight[tokens],
        [rng.standard_normal((6, 4))],
        rng,
    )


def test_embedding_of_a_strided_array(rng):
    tokens = rng.integers(0, 5, (3, 8)).astype(np.int32)
    table = variable(rng.standard_normal((5, 4)))
    found = F.embedding(tokens[:, ::2], table)
    np.testing.assert_array_equal(back(found.data), back(table.data)[tokens[:, ::2]])


@pytest.mark.parametrize("token", [-1, 5])
def test_embedding_of_a_token_out_of_range(token):
    with pytest.raises(longnet.LongNetError, match=rf"is {token}, expected 0 to 4"):
        F.embedding(np.array([[0, token]], np.int32), variable(np.zeros((5, 4))))
