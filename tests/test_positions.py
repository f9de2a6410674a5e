"""Positions of a model: those added to the embedding, and RoPE beyond the length trained on."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from gradients import check_op, variable
from parallel_cases import on_shards, results
from reference import longnet as reference
from reference.rotary import frequencies, positions
from test_model import TINY

import longnet
from longnet import Config, Tensor, nn
from longnet import functional as F
from longnet.autograd import no_grad
from longnet.model import LongNet

KINDS = {
    "xpos": {},
    "rope": {},
    "alibi": {},
    "sinusoidal": {},
    "learned": {"max_positions": 64},
    "none": {},
}


def model_of(position, **options):
    return LongNet(Config(**TINY | {"position": position} | KINDS[position] | options), seed=3)


@pytest.mark.parametrize("documents", [None, [0, 3, 3, 11]])
@pytest.mark.parametrize("start", [0, 5, 2**33])
def test_sinusoids(rng, start, documents):
    borders = None if documents is None else np.array([*documents, start + 11])
    p = positions(11, start, borders)
    check_op(
        lambda x: F.add_sinusoids(
            x, start=start, cu_seqlens=None if borders is None else Tensor(borders)
        ),
        lambda x: x + reference.sinusoids(p.astype(np.longdouble), 12, 1e4),
        [rng.standard_normal((1, 11, 12))],
        rng,
    )


def test_sinusoids_of_sequences_that_begin_elsewhere(rng):
    x = variable(rng.standard_normal((3, 4, 12)))
    found = F.add_sinusoids(x, start=[0, 9, 100]).data.numpy()
    for b, start in enumerate((0, 9, 100)):
        alone = F.add_sinusoids(variable(x.data.numpy()[b : b + 1]), start=start).data.numpy()
        np.testing.assert_array_equal(found[b : b + 1], alone)


@pytest.mark.parametrize("position", KINDS)
def test_the_order_of_tokens_matters_or_not(position):
    """Without positions, what came before is a set."""
    options = {"segment_lengths": (16,), "dilation_rates": (1,), "num_layers": 1}
    model = model_of(position, **options).eval()
    with no_grad():
        one, other = (
            model.logits(np.array([tokens])).data.numpy()[0, -1]
            for tokens in ([1, 2, 3, 4, 5, 6], [4, 2, 5, 1, 3, 6])
        )
    assert (np.abs(one - other).max() > 1e-3) == (position != "none")


@pytest.mark.parametrize("position", KINDS)
def test_documents_are_as_if_alone(rng, position):
    model, borders = model_of(position).eval(), np.array([0, 5, 18])
    tokens = rng.integers(0, 11, (1, 18)).astype(np.int32)
    with no_grad():
        packed = model.logits(tokens, cu_seqlens=borders).data.numpy()
        alone = [model.logits(tokens[:, a:e].copy()).data.numpy() for a, e in ((0, 5), (5, 18))]
    np.testing.assert_allclose(packed, np.concatenate(alone, axis=1), rtol=0, atol=5e-6)


@pytest.mark.parametrize("position", KINDS)
def test_a_cache_places_rows_where_they_are(rng, position):
    """Two sequences of unequal lengths, some rows at a time."""
    model = model_of(position, segment_lengths=(6, 12), dilation_rates=(1, 3)).eval()
    tokens = rng.integers(0, 11, (2, 30)).astype(np.int32)
    with no_grad():
        whole = model.logits(tokens).data.numpy()
        cache, seen = model.cache(2), [0, 0]
        for lengths in ([7, 4], [9, 2], *[[1, 1]] * 13):
            piece = np.zeros((2, max(lengths)), np.int32)
            for b, n in enumerate(lengths):
                piece[b, :n] = tokens[b, seen[b] : seen[b] + n]
            found = model.logits(piece, cache=cache, lengths=lengths).data.numpy()
            for b, n in enumerate(lengths):
                expected = whole[b, seen[b] : seen[b] + n]
                np.testing.assert_allclose(found[b, :n], expected, rtol=0, atol=2e-5)
                seen[b] += n


def test_more_rows_than_learned_positions(rng):
    model = model_of("learned", max_positions=8)
    tokens = rng.integers(0, 11, (1, 9)).astype(np.int32)
    message = "model.max_positions: found 8, expected at least {}, the rows of a sequence"
    with pytest.raises(longnet.ConfigError, match=message.format(9)):
        model.logits(tokens)
    assert model.logits(tokens, cu_seqlens=np.array([0, 8, 9])).shape == (1, 9, 11)
    with pytest.raises(longnet.ConfigError, match=message.format(9)):
        model.logits(tokens, cu_seqlens=np.array([0, 0, 9]))

    def call(comm, rows):
        with pytest.raises(longnet.ConfigError, match=message.format(9)):
            model_of("learned", max_positions=8).logits(tokens[:, rows].copy(), comm=comm)
        assert comm.bytes_sent == 0

    results(on_shards(call, (5, 4)))


def test_learned_positions_far_along_a_cache(rng):
    model = model_of("learned", max_positions=8).eval()
    tokens = rng.integers(0, 11, (2, 6)).astype(np.int32)
    with no_grad():
        cache = model.cache(2)
        model.logits(tokens, cache=cache, lengths=[6, 3])
        model.logits(tokens[:, :4], cache=cache, lengths=[2, 4])  # 2 of the 4 rows are padding
        with pytest.raises(longnet.ConfigError, match="found 8, expected at least 9"):
            model.logits(tokens[:, :1], cache=cache)


def scaled(scaling, factor, **options):
    config = Config(**TINY | {"position": "rope"} | options)
    length = 16 if scaling == "yarn" else None
    return dataclasses.replace(
        config, position_scaling=scaling, position_factor=factor, position_length=length
    )


@pytest.mark.parametrize("scaling", ["interpolation", "ntk", "yarn"])
def test_a_factor_of_one_changes_no_bit(rng, scaling):
    tokens = rng.integers(0, 11, (1, 30)).astype(np.int32)
    weights = LongNet(scaled("none", 1.0), seed=3)
    other = LongNet(scaled(scaling, 1.0), seed=8)
    other.load_state_dict(weights.state_dict())
    np.testing.assert_array_equal(
        other.logits(tokens).data.numpy(), weights.logits(tokens).data.numpy()
    )


@pytest.mark.parametrize("scaling", ["interpolation", "ntk", "yarn"])
def test_longer_contexts_against_the_published_formulas(rng, scaling):
    config = scaled(scaling, 4.0)
    model, tokens = LongNet(config, seed=3), rng.integers(0, 11, (2, 30)).astype(np.int32)
    weights = {name: array.astype(float) for name, array in model.state_dict().items()}
    expected = reference.logits(config, weights, tokens)
    error = np.abs(model.logits(tokens).data.numpy() - expected).max()
    assert error < 1e-5 * np.abs(expected).max()


def test_interpolation_is_the_place_between():
    """Position s m of a model with factor s is position m of the one it was trained as."""
    config = scaled("interpolation", 4.0)
    x = np.ones((1, 1, 1, config.head_dim), np.float32)
    for m in (1, 7, 4095):
        found, expected = (
            F.rotary(variable(x), sign=1, start=start, **nn.rotation(c)).data.numpy()
            for start, c in ((4 * m, config), (m, scaled("none", 1.0)))
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_ntk_interpolates_the_slowest_pair_and_leaves_the_fastest():
    config = scaled("ntk", 4.0)
    D, options = config.head_dim, nn.rotation(config)
    assert options["base"] == pytest.approx(10000 * 4 ** (D / (D - 2)))
    before, after = frequencies(D, 10000.0), frequencies(D, options["base"])
    assert after[0] == before[0]
    assert float(after[-1]) == pytest.approx(float(before[-1]) / 4)


def test_yarn_s_temperature():
    """sqrt(1 / t) = 0.1 ln s + 1 multiplies queries and keys."""
    assert nn.temperature(scaled("yarn", 16.0)) == pytest.approx((0.1 * math.log(16) + 1) ** 2)
    assert nn.temperature(scaled("ntk", 16.0)) == 1.0


def test_the_page_s_code_runs():
    """A trained model is loaded into a configuration for four times its length."""
    page = Path(__file__).parents[1] / "docs/positions.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names = {}
    exec(compile(block, str(page), "exec"), names)
    assert names["model"].logits(np.zeros((1, 2048), np.int32)).shape == (1, 2048, 256)
