"""Norms, activations, sums, dropout, casts and shapes on the tape."""

import numpy as np
import pytest
from gradients import check_op, variable
from reference import gelu, layer_norm, rms_norm, swiglu
from reference.dropout import dropout

from longnet import Tensor
from longnet import functional as F
from longnet.autograd import Variable
from longnet.recompute import checkpoint

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


NORMS = {
    "layer_norm": (F.layer_norm, F.add_layer_norm, layer_norm.forward, 2),
    "rms_norm": (F.rms_norm, F.add_rms_norm, rms_norm.forward, 1),
}


@pytest.mark.parametrize("name", sorted(NORMS))
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_norm_of_gelu(rng, shape, name):
    norm, _, reference, vectors = NORMS[name]
    arrays = [rng.standard_normal(s) for s in (shape, *[shape[-1:]] * vectors)]
    check_op(
        lambda x, *v: norm(x, *v, eps=1e-3, gelu=True),
        lambda x, *v: reference(gelu.forward(x), *v, 1e-3)[0],
        arrays,
        rng,
    )


@pytest.mark.parametrize("name", sorted(NORMS))
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_sum_and_norm(rng, shape, name):
    """The sum goes on beside its norm: its gradient comes from both, and goes to both terms."""
    _, add_norm, reference, vectors = NORMS[name]
    arrays = [rng.standard_normal(s) for s in (shape, shape, *[shape[-1:]] * vectors)]

    def branch(x, y, *v):
        total, norm = add_norm(x, y, *v, eps=1e-3)
        return F.add(F.gelu(norm), total)

    def branch_reference(x, y, *v):
        return gelu.forward(reference(x + y, *v, 1e-3)[0]) + x + y

    check_op(branch, branch_reference, arrays, rng)
    check_op(
        lambda *a: add_norm(*a, eps=1e-3)[1],
        lambda x, y, *v: reference(x + y, *v, 1e-3)[0],
        arrays,
        rng,
    )


@pytest.mark.parametrize("name", sorted(NORMS))
@pytest.mark.parametrize("keep", [False, True])
def test_sum_and_norm_is_add_and_norm(rng, name, keep):
    """The same bits, gradients too, and with the forward pass computed again."""
    norm, add_norm, _, vectors = NORMS[name]
    arrays = [rng.standard_normal(s) for s in ((5, 33), (5, 33), *[(33,)] * vectors)]
    dout = Tensor(rng.standard_normal((5, 33)).astype(np.float32))

    def apart(x, y, *v):
        total = F.add(x, y)
        return F.add(total, norm(total, *v))

    def fused(x, y, *v):
        return F.add(*add_norm(x, y, *v))

    found = []
    for function in (apart, fused, lambda *a: checkpoint(fused, *a)):
        inputs = [variable(a) for a in arrays]
        if keep:  # another use of x, which adds to the gradient of a leaf before and after
            inputs[0].grad = Tensor(np.ones((5, 33), np.float32))
        out = function(*inputs)
        out.backward(dout)
        found.append([out.data.numpy(), *(x.grad.numpy() for x in inputs)])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


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
