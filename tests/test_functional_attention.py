"""Dilated attention on the tape."""

import numpy as np
import pytest
from gradients import check_op, variable
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

import longnet
from longnet import Tensor
from longnet import functional as F

PATTERN = Pattern((4, 12), (1, 3))
TOLERANCE = 2e-5  # exp and the differences of dS lose a few bits more than a product does


def check(rng, arrays, options, **tensors):
    attention = longnet.DilatedAttention(PATTERN.segment_lengths, PATTERN.dilation_rates)
    check_op(
        lambda q, k, v: F.dilated_attention(q, k, v, attention, **tensors),
        lambda q, k, v: reference.forward(PATTERN, q, k, v, **options)[0],
        arrays,
        rng,
        tolerance=TOLERANCE,
    )


def arrays(rng, batch, n, kv_heads):
    return [rng.standard_normal((batch, n, h, 16)) for h in (4, kv_heads, kv_heads)]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_gradients(rng, kv_heads):
    check(rng, arrays(rng, 2, 17, kv_heads), {})


def test_lengths(rng):
    lengths = np.array([17, 5])
    check(rng, arrays(rng, 2, 17, 2), {"lengths": lengths}, lengths=Tensor(lengths))


def test_documents(rng):
    borders = np.array([0, 6, 17])
    check(rng, arrays(rng, 1, 17, 2), {"cu_seqlens": borders}, cu_seqlens=Tensor(borders))


def test_dropout_is_the_same_in_both_passes(rng):
    attention = longnet.DilatedAttention([8], [1], dropout=0.5)
    q, k, v = (variable(x) for x in arrays(rng, 1, 8, 4))
    out = F.dilated_attention(q, k, v, attention, seed=11)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    out.backward(Tensor(dout.copy()))
    # linear in v: the gradient along v itself is the output
    along = (v.grad.numpy() * v.data.numpy()).sum()
    assert along == pytest.approx(float((out.data.numpy() * dout).sum()), rel=1e-4, abs=1e-4)
    other = F.dilated_attention(q, k, v, attention, seed=12)
    assert not np.array_equal(other.data.numpy(), out.data.numpy())
