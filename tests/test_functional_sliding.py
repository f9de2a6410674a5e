"""A sliding window and the Sparse Transformer's fixed pattern on the tape, against plain masks."""

import ml_dtypes
import numpy as np
import pytest
from gradients import check_op
from reference import masked_attention

import longnet
from longnet import Tensor
from longnet import functional as F
from longnet.autograd import Variable

TOLERANCE = 2e-5  # as of dilated attention


PATTERNS = {
    "sliding": (F.sliding_attention, masked_attention.sliding),
    "fixed": (F.fixed_attention, masked_attention.fixed),
}
SIZES = {"sliding": [(2,), (5,), (9,), (40,)], "fixed": [(6, 2), (5, 1), (4, 4), (40, 3)]}
CASES = [(name, size) for name, sizes in SIZES.items() for size in sizes]


def reference(name, size, *arrays, **sequences):
    return masked_attention.forward(PATTERNS[name][1](*size), *arrays, **sequences)


def check(rng, name, size, arrays, **sequences):
    check_op(
        lambda q, k, v: PATTERNS[name][0](q, k, v, *size, **sequences),
        lambda q, k, v: reference(name, size, q, k, v, **sequences),
        arrays,
        rng,
        tolerance=TOLERANCE,
    )


def arrays(rng, batch, n, kv_heads=2):
    return [rng.standard_normal((batch, n, h, 16)) for h in (4, kv_heads, kv_heads)]


@pytest.mark.parametrize("n", [3, 8, 23])
@pytest.mark.parametrize(("name", "size"), CASES)
def test_value_and_gradients(rng, name, size, n):
    check(rng, name, size, arrays(rng, 2, n))


@pytest.mark.parametrize(("name", "size"), [*CASES, ("sliding", (1,))])
def test_one_row(rng, name, size):
    """All that there is to see is the row itself; so it is in a window of one."""
    n = 5 if size == (1,) else 1
    inputs = [Variable(Tensor(x.astype(np.float32))) for x in arrays(rng, 2, n)]
    found = PATTERNS[name][0](*inputs, *size).data.numpy()
    np.testing.assert_array_equal(found, inputs[2].data.numpy().repeat(2, axis=2))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_lengths(rng, name, size):
    check(rng, name, size, arrays(rng, 3, 23), lengths=np.array([23, 0, 14]))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_documents(rng, name, size):
    check(rng, name, size, arrays(rng, 1, 29), cu_seqlens=np.array([0, 11, 11, 12, 29]))


@pytest.mark.parametrize(("name", "size"), [("sliding", (7,)), ("fixed", (6, 2))])
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision(rng, name, size, dtype):
    """At most three times the error of rounding the result: it is put together of two parts."""
    q, k, v = (x.astype(dtype) for x in arrays(rng, 1, 41))
    expected = reference(name, size, *(x.astype(float) for x in (q, k, v)))
    found = PATTERNS[name][0](*(Variable(Tensor(x)) for x in (q, k, v)), *size).data.numpy()
    rounding = np.abs(expected.astype(dtype).astype(float) - expected).max()
    assert np.abs(found.astype(float) - expected).max() <= 3 * rounding


@pytest.mark.parametrize(("name", "size"), [("sliding", (7,)), ("fixed", (6, 2))])
def test_dropout(rng, name, size):
    """The same in both passes, another with another seed, and the mean is what it would be."""
    inputs = [
        Variable(Tensor(x.astype(np.float32)), requires_grad=True) for x in arrays(rng, 1, 23)
    ]
    attend = PATTERNS[name][0]
    out = attend(*inputs, *size, seed=3, dropout=0.4)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    out.backward(Tensor(dout.copy()))
    v = inputs[2]
    along = (v.grad.numpy() * v.data.numpy()).sum()  # linear in v
    assert along == pytest.approx(float((out.data.numpy() * dout).sum()), rel=1e-4, abs=1e-4)
    runs = [attend(*inputs, *size, seed=s, dropout=0.4).data.numpy() for s in range(400)]
    assert not np.array_equal(runs[0], runs[1])
    whole = attend(*inputs, *size).data.numpy()
    spread = np.std(runs, axis=0) / np.sqrt(len(runs))
    assert (np.abs(np.mean(runs, axis=0) - whole) <= 6 * spread + 1e-6).all()


def test_the_scale(rng):
    q, k, v = (Variable(Tensor(x.astype(np.float32))) for x in arrays(rng, 1, 23))
    for name, size in (("sliding", (7,)), ("fixed", (6, 2))):
        scaled = Variable(Tensor((2 * q.data.numpy()).astype(np.float32)))
        one, other = (
            PATTERNS[name][0](x, k, v, *size, scale=s).data.numpy()
            for x, s in ((q, 0.5), (scaled, 0.25))
        )
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_windows_are_errors_of_the_attention(rng):
    q, k, v = (Variable(Tensor(x.astype(np.float32))) for x in arrays(rng, 1, 5))
    with pytest.raises(longnet.ConfigError, match="dropout"):
        F.sliding_attention(q, k, v, 3, dropout=1.5)
