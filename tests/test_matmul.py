"""The one place where products are taken."""

import ml_dtypes
import numpy as np
import pytest

import longnet
from longnet import Tensor
from longnet.matmul import matmul

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
EPS = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}  # half a unit in the last place


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 33), (64, 130, 48)])
def test_product(rng, dtype, accumulate, transpose_a, transpose_b, shape):
    M, N, K = shape
    kind = DTYPES[dtype]
    a, b, c = (rng.standard_normal(s).astype(kind) for s in ((M, K), (K, N), (M, N)))
    expected = a.astype(float) @ b.astype(float) + accumulate * c.astype(float)
    out = Tensor(c if accumulate else np.full_like(c, np.nan))
    matmul(
        out,
        Tensor(np.ascontiguousarray(a.T) if transpose_a else a),
        Tensor(np.ascontiguousarray(b.T) if transpose_b else b),
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        accumulate=accumulate,
    )
    terms = np.abs(a.astype(float)) @ np.abs(b.astype(float)) + np.abs(expected)
    error = np.abs(out.numpy().astype(float) - expected)
    assert (error <= EPS[dtype] * np.abs(expected) + (K + 2) * 2**-24 * terms).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_half_precision_in_float32(rng, dtype):
    a, b = (rng.standard_normal((3, 3)).astype(DTYPES[dtype]) for _ in range(2))
    out = np.ones((3, 3), np.float32)
    matmul(Tensor(out), Tensor(a), Tensor(b), accumulate=True)
    expected = 1.0 + a.astype(float) @ b.astype(float)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6 * np.abs(expected).max() + 1e-6)


def test_nothing_to_sum():
    out = np.ones((2, 3), np.float32)
    matmul(Tensor(out), Tensor.empty((2, 0)), Tensor.empty((0, 3)))
    assert not out.any()


def test_shapes_that_do_not_fit():
    a, b, out = Tensor.empty((2, 3)), Tensor.empty((4, 5)), Tensor.empty((2, 5))
    with pytest.raises(longnet.ShapeError, match=r"\(2, 3\) times \(4, 5\) into \(2, 5\)"):
        matmul(out, a, b)
    with pytest.raises(longnet.ShapeError, match=r"\(2, 3\) times \(3, 4\) into \(2, 5\)"):
        matmul(out, a, Tensor.empty((4, 3)), transpose_b=True)
    with pytest.raises(longnet.ShapeError, match=r"a of shape \(2, 3, 1\)"):
        matmul(out, a.reshape(2, 3, 1), b)
