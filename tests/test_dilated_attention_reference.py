"""The NumPy reference itself: known answers, finite differences, and cases with another way."""

from dataclasses import replace

import numpy as np
import pytest
from attention_cases import relative_error
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern
from reference.philox import philox


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [  # Random123's known answers of philox4x32-10, words least significant first
        ((0, 0), (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(key, counter, words):
    low, high = counter[0] | counter[1] << 32, counter[2] | counter[3] << 32
    drawn = philox(key[0] | key[1] << 32, np.array([low], np.uint64), np.array([high], np.uint64))
    assert [f"{word:08x}" for word in drawn[0]] == words.split()


def test_pattern_by_hand():
    pattern = Pattern((4, 8), (2, 4), causal=True)
    assert reference.visible(pattern, 8, head=1, heads=2).tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 2, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 2, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 1],
    ]


def test_offsets():
    interleaved, grouped = Pattern((8,), (4,)), Pattern((8,), (4,), offsets="grouped")
    assert [interleaved.head_offset(h, 6, 4) for h in range(6)] == [0, 1, 2, 3, 0, 1]
    assert [grouped.head_offset(h, 6, 4) for h in range(6)] == [0, 0, 1, 1, 2, 2]


def detached_forward(pattern, q, k, v, fixed_q, fixed_k, **options):
    """The levels' own outputs of (q, k, v), mixed by the weights that (fixed_q, fixed_k) give."""
    _, total = reference.forward(pattern, fixed_q, fixed_k, v, **options)
    mixed = np.zeros(q.shape)
    for w, r in pattern.levels:
        level = replace(pattern, segment_lengths=(w,), dilation_rates=(r,))
        out, _ = reference.forward(level, q, k, v, **options)
        _, lse = reference.forward(level, fixed_q, fixed_k, v, **options)
        with np.errstate(invalid="ignore"):  # no level covers the row: -inf - -inf
            weight = np.where(np.isfinite(lse), np.exp(lse - total), 0.0)
        mixed += weight.transpose(0, 2, 1)[..., None] * out
    return mixed


@pytest.mark.parametrize("gradient", ["exact", "detached"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("zeros", [False, True])
def test_finite_differences(rng, gradient, causal, zeros):
    pattern = Pattern((4, 7), (1, 3), causal, "interleaved", gradient, zeros)
    dout, q = rng.standard_normal((2, 2, 9, 4, 3))
    k, v = rng.standard_normal((2, 2, 9, 2, 3))
    options = {"lengths": np.array([9, 6])}
    out, lse = reference.forward(pattern, q, k, v, **options)
    gradients = reference.backward(pattern, dout, q, k, v, out, lse, **options)

    def loss(inputs):
        if gradient == "exact":
            return np.sum(dout * reference.forward(pattern, *inputs, **options)[0])
        return np.sum(dout * detached_forward(pattern, *inputs, q, k, **options))

    for which, computed in enumerate(gradients):
        for _ in range(4):  # the derivative along random directions
            inputs, direction = [q, k, v], rng.standard_normal(computed.shape)
            there, back = list(inputs), list(inputs)
            there[which] = inputs[which] + 1e-5 * direction
            back[which] = inputs[which] - 1e-5 * direction
            slope = (loss(there) - loss(back)) / 2e-5
            assert slope == pytest.approx(np.sum(computed * direction), rel=1e-6, abs=1e-8)


def test_dropout_derivative(rng):
    """The mask of backward is forward's: dq, dk and dv are the derivatives of what was computed."""
    pattern = Pattern((5, 8), (1, 2), dropout=0.4)
    dout, q, k, v = rng.standard_normal((4, 1, 11, 2, 3))
    options = {"seed": 7, "cu_seqlens": np.array([0, 4, 4, 11])}
    out, lse = reference.forward(pattern, q, k, v, **options)
    gradients = reference.backward(pattern, dout, q, k, v, out, lse, **options)
    directions = rng.standard_normal((3, *q.shape))
    ends = [
        np.sum(dout * reference.forward(pattern, *(np.array([q, k, v]) + e), **options)[0])
        for e in (1e-5 * directions, -1e-5 * directions)
    ]
    slope = (ends[0] - ends[1]) / 2e-5
    assert slope == pytest.approx(np.sum(np.array(gradients) * directions), rel=1e-6)


def test_dropout_keeps_its_share(rng):
    pattern = Pattern((256,), (1,), dropout=0.3)
    factor = reference.dropout_factor(pattern, 256, 0, 1, 2, 4, 0, seed=2**63 + 1)
    assert set(np.unique(factor)) == {0.0, 1 / 0.7}
    assert np.mean(factor > 0) == pytest.approx(0.7, abs=0.01)
    others = [
        reference.dropout_factor(pattern, 256, *x)
        for x in [(0, 1, 2, 4, 0, 1), (0, 1, 3, 4, 0, 2**63 + 1), (256, 1, 2, 4, 0, 2**63 + 1)]
    ]
    for other in others:  # another seed, head, segment: independent masks agree on 0.58
        assert np.mean(factor == other) == pytest.approx(0.58, abs=0.02)


def test_zero_keys_are_padding(rng):
    """What torchscale computes: pad with zeros to whole segments and whole rates, then attend."""
    n, w, r = 21, 8, 3
    q, k, v = rng.standard_normal((3, 1, n, 3, 4))
    out, lse = reference.forward(Pattern((w,), (r,), causal=False, zero_keys=True), q, k, v)
    for start in range(0, n, w):
        rows = slice(start, min(start + w, n))
        padded = np.zeros((3, 9, 3, 4))  # 9: w up to a multiple of r
        padded[:, : rows.stop - start] = np.array([q, k, v])[:, 0, rows]
        for h in range(3):
            qs, ks, vs = padded[:, h % r :: r, h]
            p = np.exp(0.5 * qs @ ks.T)
            own = np.zeros((9, 4))
            own[h % r :: r] = p @ vs / p.sum(axis=1, keepdims=True)
            assert relative_error(out[0, rows, h], own[: rows.stop - start]) < 1e-12
            real = lse[0, h, rows][h % r :: r]
            assert relative_error(real, np.log(p.sum(axis=1))[: len(real)]) < 1e-12
