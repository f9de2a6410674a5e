"""RoPE and xPos on the tape."""

import numpy as np
import pytest
from gradients import check_op, variable
from reference.longnet import place
from reference.rotary import rotary

from longnet import Config, Tensor
from longnet import functional as F

ROPE = {"base": 10000.0, "scale_base": 0.0, "block": 0, "start": 0}
XPOS = {"base": 100.0, "scale_base": 4.0, "block": 8, "start": 0}


def check(rng, shape, cu_seqlens=None, **options):
    tensor = None if cu_seqlens is None else Tensor(cu_seqlens)
    check_op(
        lambda x: F.rotary(x, cu_seqlens=tensor, **options),
        lambda x: rotary(x, cu_seqlens, inverse=False, **options),
        [rng.standard_normal(shape)],
        rng,
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("options", [ROPE, XPOS, XPOS | {"start": 5}])
def test_value_and_gradient(rng, sign, options):
    check(rng, (2, 13, 3, 16), sign=sign, **options)


@pytest.mark.parametrize("sign", [1, -1])
def test_documents_begin_anew(rng, sign):
    check(rng, (1, 10, 2, 24), np.array([0, 3, 3, 10]), sign=sign, **XPOS)


def test_scores_are_those_of_unbounded_xpos(rng):
    """Inside each block the products are those of xPos at positions counted from 0."""
    N, block = 24, 8
    config = Config(position="xpos", xpos_scale_base=6.0, segment_lengths=[8], dilation_rates=[1])
    inputs = rng.standard_normal((2, 1, N, 1, 16)).astype(np.float32)
    found, expected = [], []
    for x, sign in zip(inputs, (1, -1), strict=True):
        y = F.rotary(variable(x), sign=sign, scale_base=6.0, block=block)
        found.append(y.data.numpy()[0, :, 0])
        plain = place(config, x.astype(float), np.arange(float(N)), sign)
        expected.append(plain[0, :, 0])
    for begin in range(0, N, block):
        rows = slice(begin, begin + block)
        np.testing.assert_allclose(
            found[0][rows] @ found[1][rows].T, expected[0][rows] @ expected[1][rows].T, atol=1e-5
        )


def test_xpos_is_finite_far_out(rng):
    x = variable(rng.standard_normal((1, 8, 1, 64)))
    for sign in (1, -1):
        y = F.rotary(x, sign=sign, scale_base=512.0, block=32768, start=10**9).data.numpy()
        assert np.isfinite(y).all()
        assert np.abs(y).max() < np.abs(x.data.numpy()).max() * 2 * 3.5**32
