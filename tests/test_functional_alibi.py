"""ALiBi on the tape: dilated attention with its biases, against float64."""

import ml_dtypes
import numpy as np
import pytest
from gradients import check_op
from reference import alibi as reference
from reference.dilated_attention import Pattern

import longnet
from longnet import Tensor
from longnet import functional as F
from longnet.autograd import Variable

D = 16


def attend(pattern, q, k, v, block, start=0, cu_seqlens=None):
    scale = D**-0.5
    place = {"block": block, "scale": scale, "start": start, "cu_seqlens": cu_seqlens}
    attention = longnet.DilatedAttention(
        pattern.segment_lengths, pattern.dilation_rates, scale=scale
    )
    wide = [F.alibi(x, sign=s, **place) for x, s in ((q, 1), (k, -1), (v, 0))]
    return F.without_alibi(F.dilated_attention(*wide, attention, cu_seqlens=cu_seqlens))


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20, 112])
def test_slopes_are_those_published(heads):
    np.testing.assert_allclose(F.alibi_slopes(heads), reference.slopes(heads), rtol=1e-14)


def test_slopes_of_eight_heads_are_halves():
    np.testing.assert_array_equal(F.alibi_slopes(8), 2.0 ** -np.arange(1, 9))


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_value_and_gradients(rng, kv_heads):
    pattern = Pattern((4, 12), (1, 3))
    check_op(
        lambda q, k, v: attend(pattern, q, k, v, 12),
        lambda q, k, v: reference.attention(pattern, q, k, v),
        [rng.standard_normal((2, 29, h, D)) for h in (4, kv_heads, kv_heads)],
        rng,
        tolerance=2e-5,  # as without biases
    )


def test_documents(rng):
    pattern, borders = Pattern((4, 12), (1, 3)), np.array([0, 5, 5, 29])
    check_op(
        lambda q, k, v: attend(pattern, q, k, v, 12, cu_seqlens=Tensor(borders)),
        lambda q, k, v: reference.attention(pattern, q, k, v, cu_seqlens=borders),
        [rng.standard_normal((1, 29, 4, D)) for _ in range(3)],
        rng,
        tolerance=2e-5,
    )


@pytest.mark.parametrize("start", [0, 32_768 - 512, 2**24 - 512])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_far_from_the_block_s_begin(rng, dtype, start):
    """Where slope * position is thousands and more, scores are as exact as anywhere."""
    pattern, block = Pattern((512,), (1,)), 2**22 if dtype == np.float16 else 2**24
    arrays = [rng.standard_normal((1, 512, 4, D)).astype(dtype) for _ in range(4)]
    q, k, v = (Variable(Tensor(x), requires_grad=True) for x in arrays[:3])
    out = attend(pattern, q, k, v, block, start)
    out.backward(Tensor(arrays[3]))
    found = [out.data.numpy(), *(x.grad.numpy() for x in (q, k, v))]
    expected = gradients(pattern, *arrays)
    for name, x, y in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        error, largest = np.abs(x.astype(float) - y).max(), np.abs(y).max()
        rounding = np.abs(y.astype(dtype).astype(float) - y).max()
        assert error <= 2e-6 * largest if dtype == np.float32 else error <= 2.5 * rounding, name


def test_blocks_too_long_for_float16(rng):
    x = Variable(Tensor(rng.standard_normal((1, 3, 4, D)).astype(np.float16)))
    with pytest.raises(longnet.ConfigError, match="block of 16777216 rows, expected at most 1676"):
        F.alibi(x, sign=1, block=2**24, scale=D**-0.5)


def gradients(pattern, q, k, v, dout):
    """Output and gradients in float64, plainly."""
    q, k, v, dout = (x[0].astype(float).swapaxes(0, 1) for x in (q, k, v, dout))
    p, scale = np.arange(q.shape[1]), D**-0.5
    slopes = np.array(reference.slopes(q.shape[0]))[:, None, None]
    s = scale * q @ k.swapaxes(1, 2) - slopes * (p[:, None] - p[None, :])
    s = np.where(p[:, None] >= p[None, :], s, -np.inf)
    e = np.exp(s - s.max(axis=2, keepdims=True))
    e /= e.sum(axis=2, keepdims=True)
    out, de = e @ v, dout @ v.swapaxes(1, 2)
    ds = scale * e * (de - (de * e).sum(axis=2, keepdims=True))
    results = out, ds @ k, ds.swapaxes(1, 2) @ q, e.swapaxes(1, 2) @ dout
    return [x.swapaxes(0, 1)[None] for x in results]
