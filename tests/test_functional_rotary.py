"""RoPE and xPos on the tape."""

import numpy as np
import pytest
from gradients import check_op, variable

from longnet import Tensor
from longnet import functional as F


def reference(x, positions, *, sign, base=10000.0, scale_base=0.0, centre=0.0):
    """xPos by its definition: each pair is a complex number times (zeta e^(i angle))^position."""
    half = np.arange(x.shape[-1] // 2)
    angle = positions[:, None] * base ** (-2.0 * half / x.shape[-1])
    zeta = (2 * half / x.shape[-1] + 0.4) / 1.4
    power = sign * (positions - centre) / scale_base if scale_base else 0 * positions
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * (np.exp(1j * angle) * zeta ** power[:, None])[
        None, :, None
    ]
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("start", [0, 5])
def test_rope(rng, sign, start):
    check_op(
        lambda x: F.rotary(x, sign=sign, start=start),
        lambda x: reference(x, start + np.arange(7.0), sign=sign),
        [rng.standard_normal((2, 7, 3, 16))],
        rng,
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_xpos_inside_a_block(rng, sign):
    check_op(
        lambda x: F.rotary(x, sign=sign, scale_base=8.0, block=16, base=100.0),
        lambda x: reference(x, np.arange(13.0), sign=sign, scale_base=8.0, centre=8.0, base=100.0),
        [rng.standard_normal((2, 13, 2, 24))],
        rng,
    )


def test_documents_begin_anew(rng):
    borders = np.array([0, 3, 3, 10])
    positions = np.concatenate([np.arange(3.0), np.arange(7.0)])
    check_op(
        lambda x: F.rotary(x, sign=1, cu_seqlens=Tensor(borders), scale_base=4.0, block=8),
        lambda x: reference(x, positions, sign=1, scale_base=4.0, centre=4.0),
        [rng.standard_normal((1, 10, 2, 16))],
        rng,
    )


def test_scores_are_those_of_unbounded_xpos(rng):
    """Inside each block the products are those of xPos at positions counted from 0."""
    N, block = 24, 8
    q, k = (rng.standard_normal((1, N, 1, 16)).astype(np.float32) for _ in range(2))
    rotated = [
        F.rotary(variable(x), sign=s, scale_base=6.0, block=block).data.numpy()[0, :, 0]
        for x, s in ((q, 1), (k, -1))
    ]
    plain = [
        reference(x.astype(float), np.arange(float(N)), sign=s, scale_base=6.0)[0, :, 0]
        for x, s in ((q, 1), (k, -1))
    ]
    for begin in range(0, N, block):
        rows = slice(begin, begin + block)
        np.testing.assert_allclose(
            rotated[0][rows] @ rotated[1][rows].T, plain[0][rows] @ plain[1][rows].T, atol=1e-4
        )


def test_xpos_is_finite_far_out(rng):
    x = variable(rng.standard_normal((1, 8, 1, 64)))
    for sign in (1, -1):
        y = F.rotary(x, sign=sign, scale_base=512.0, block=32768, start=10**9).data.numpy()
        assert np.isfinite(y).all()
        assert np.abs(y).max() < np.abs(x.data.numpy()).max() * 2 * 3.5**32
