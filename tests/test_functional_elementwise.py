"""Norms, activations, sums, dropout, casts and shapes on the tape."""

import numpy as np
import pytest
from gradients import check_op, variable
from reference import gelu, layer_norm, rms_norm, swiglu
from reference.dropout import dropout

from longnet import Tensor
from longnet import functional as F
from longnet.autograd import Variable

SHAPES = [(1, 1), (3, 17), (2, 5, 64), (1, 4, 300)]


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_layer_norm(rng, shape):
    def reference(x, weight, bias):
        return layer_norm.forward(x, weight, bias, 1e-3)[0]

    arrays = [rng.standard_normal(s) for s in (shape, shape[-1:], shape[-1:])]
    check_op(lambda *a: F.layer_norm(*a, eps=1e-3), reference, arrays, rng)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_rms_norm(rng, shape):
    def reference(x, weight):
        return rms_norm.forward(x, weight, 1e-3)[0]

    arrays = [rng.standard_normal(s) for s in (shape, shape[-1:])]
    check_op(lambda *a: F.rms_norm(*a, eps=1e-3), reference, arrays, rng)


@pytest.mark.parametrize("shape", SHAPES)
def test_gelu(rng, shape):
    check_op(F.gelu, gelu.forward, [3 * rng.standard_normal(shape)], rng)


@pytest.mark.parametrize("shape", SHAPES)
def test_swiglu(rng, shape):
    arrays = [3 * rng.standard_normal(shape) for _ in range(2)]
    check_op(F.swiglu, swiglu.forward, arrays, rng)


@pytest.mark.parametrize("shape", SHAPES)
def test_add(rng, shape):
    arrays = [rng.standard_normal(shape) for _ in range(2)]
    check_op(F.add, lambda x, y: x + y, arrays, rng)


def test_reshape(rng):
    check_op(
        lambda x: F.reshape(F.gelu(x), (4, -1)),
        lambda x: gelu.forward(x).reshape(4, 6),
        [rng.standard_normal((2, 3, 4))],
        rng,
    )


def test_reshape_copies_nothing(rng):
    x = variable(rng.standard_normal((2, 6)))
    assert np.shares_memory(F.reshape(x, (3, 4)).data.numpy(), x.data.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cast(rng, dtype):
    x = variable(rng.standard_normal((3, 5)))
    assert F.cast(x, "float32") is x
    y = F.cast(x, dtype)
    assert y.dtype == dtype
    kind = y.data.numpy().dtype
    np.testing.assert_array_equal(y.data.numpy(), x.data.numpy().astype(kind))
    dy = rng.standard_normal((3, 5)).astype(kind)
    y.backward(Tensor(dy))
    np.testing.assert_array_equal(x.grad.numpy(), dy.astype(np.float32))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout(rng, p):
    check_op(
        lambda x: F.dropout(x, p, seed=7),
        lambda x: dropout(x, p, 7),
        [rng.standard_normal((5, 33))],
        rng,
    )


def test_no_dropout():
    x = Variable(Tensor(np.ones(3, np.float32)))
    assert F.dropout(x, 0.0, seed=1) is x
