"""LongNet against a float64 model: loss, full gradient, causality, packing, padding."""

import math

import numpy as np
import pytest
from reference import longnet as reference

import longnet
from longnet import Config, Tensor, random
from longnet import block as block_module
from longnet import recompute as recompute_module
from longnet.autograd import no_grad
from longnet.model import IGNORE_INDEX, RECOMPUTE, LongNet

TINY = {
    "vocab_size": 11,
    "num_layers": 2,
    "embed_dim": 32,
    "num_heads": 2,
    "ffn_dim": 40,
    "segment_lengths": (4, 8),
    "dilation_rates": (1, 3),
    "xpos_scale_base": 16.0,
}
VARIANTS = {
    "paper": {},
    "pre-norm": {"norm_placement": "pre"},
    "llama": {
        "norm_placement": "pre",
        "norm": "rms_norm",
        "activation": "swiglu",
        "position": "rope",
        "bias": False,
        "num_kv_heads": 1,
    },
    "tied": {"tie_embeddings": True, "position": "none", "offsets": "grouped"},
    "dense": {"mixer": "dense"},
    "sliding": {"mixer": "sliding", "window": 6, "position": "rope"},
    "sparse": {"mixer": "sparse", "summary_columns": 2, "num_kv_heads": 1},
    "alibi": {"position": "alibi", "num_kv_heads": 1},
    "sinusoidal": {"position": "sinusoidal"},
    "learned": {"position": "learned", "max_positions": 64},
    "yarn": {
        "position": "rope",
        "position_scaling": "yarn",
        "position_factor": 4.0,
        "position_length": 16,
    },
    "per layer": {"segment_lengths": ((4,), (2, 16)), "dilation_rates": ((2,), (1, 4))},
}


def make(**options):
    """A model whose norms and biases are not at their special first values."""
    model = LongNet(Config(**TINY | options), seed=3)
    rng = np.random.default_rng(5)
    for array in model.state_dict().values():
        if array.ndim == 1:
            array += 0.3 * rng.standard_normal(array.shape).astype(np.float32)
    return model


def batch(rng, shape=(2, 13)):
    tokens = rng.integers(0, TINY["vocab_size"], (shape[0], shape[1] + 1)).astype(np.int32)
    return tokens[:, :-1], tokens[:, 1:]


def weights64(model):
    return {name: array.astype(np.float64) for name, array in model.state_dict().items()}


def gradients(model):
    return {name: p.grad.numpy().copy() for name, p in model.named_parameters()}


def backward(model, *arguments, **options):
    model.zero_grad()
    loss = model.loss(*arguments, **options)
    loss.backward()
    return loss.item(), gradients(model)


@pytest.mark.parametrize("variant", VARIANTS)
def test_number_of_parameters(variant):
    model = make(**VARIANTS[variant])
    assert model.num_parameters() == model.config.num_parameters()


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits(rng, variant):
    model, (tokens, _) = make(**VARIANTS[variant]), batch(rng)
    expected = reference.logits(model.config, weights64(model), tokens)
    found = model.logits(tokens)
    assert found.shape == (2, 13, 11)
    error = np.abs(found.data.numpy() - expected).max()
    assert error < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_full_gradient(rng, variant):
    model, (tokens, targets) = make(**VARIANTS[variant]), batch(rng)
    targets = targets.copy()
    targets[0, :3] = IGNORE_INDEX
    loss, found = backward(model, tokens, targets, chunk=7)
    weights = weights64(model)
    expected = reference.loss(model.config, weights, tokens, targets)
    assert loss == pytest.approx(expected, rel=2e-6)
    step, largest = 1e-5, max(np.abs(g).max() for g in found.values())
    for name in weights:  # each parameter along a direction of its own
        direction = rng.standard_normal(weights[name].shape)
        ends = [
            reference.loss(
                model.config, weights | {name: weights[name] + s * direction}, tokens, targets
            )
            for s in (step, -step)
        ]
        terms = found[name] * direction
        # float32 through two layers of norms, exp and products: about 50 roundings of 6e-8. The
        # bias of keys moves nothing without positions: there terms of other gradients' size cancel.
        assert terms.sum() == pytest.approx(
            (ends[0] - ends[1]) / (2 * step), rel=0, abs=4e-6 * np.abs(terms).sum() + 1e-6 * largest
        ), name


@pytest.mark.parametrize("variant", ["paper", "dense", "sliding", "sparse"])
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_causality_by_gradient(rng, variant, recompute):
    """No target up to position n moves the embedding of a token that occurs only after n."""
    model, (tokens, targets) = make(**VARIANTS[variant]), batch(rng, (1, 24))
    for n in (0, 7, 15, 22):
        tokens, early = tokens % 10, targets.copy()
        tokens[:, n + 1 :] = 10
        early[:, n + 1 :] = IGNORE_INDEX
        found = backward(model, tokens, early, recompute=recompute)[1]
        assert not found["embedding.weight"][10].any()
        assert found["embedding.weight"][tokens[0, n]].any()


@pytest.mark.parametrize("variant", ["paper", "dense", "sliding", "sparse"])
def test_packed_documents_equal_separate_ones(rng, variant):
    model, (tokens, targets) = make(**VARIANTS[variant]), batch(rng, (1, 21))
    borders = np.array([0, 8, 8, 9, 21])
    loss, found = backward(model, tokens, targets, cu_seqlens=borders)
    weights = weights64(model)
    expected = reference.loss(model.config, weights, tokens, targets, cu_seqlens=borders)
    assert loss == pytest.approx(expected, rel=2e-6)
    total, summed = 0.0, {name: 0.0 for name in found}
    for a, e in ((0, 8), (8, 9), (9, 21)):
        part, grads = backward(model, tokens[:, a:e].copy(), targets[:, a:e].copy())
        total += part * (e - a) / 21
        summed = {name: summed[name] + grads[name] * ((e - a) / 21) for name in found}
    assert loss == pytest.approx(total, rel=1e-6)
    for name in found:
        np.testing.assert_allclose(
            found[name], summed[name], rtol=0, atol=5e-6 * np.abs(summed[name]).max()
        )


def test_padding_on_the_right_changes_nothing(rng):
    model, (tokens, targets) = make(), batch(rng, (2, 19))
    lengths = np.array([19, 6])
    loss, found = backward(model, tokens, targets, lengths=lengths)
    assert loss == pytest.approx(
        reference.loss(model.config, weights64(model), tokens, targets, lengths=lengths), rel=2e-6
    )
    tokens, targets = tokens.copy(), targets.copy()
    tokens[1, 6:], targets[1, 6:] = 0, 0
    other, changed = backward(model, tokens, targets, lengths=lengths)
    assert other == loss
    for name in found:
        np.testing.assert_array_equal(found[name], changed[name])


@pytest.mark.parametrize("variant", ["paper", "sliding", "sparse"])
@pytest.mark.parametrize("chunk_rows", [10, 1 << 17])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputing_gives_the_same_bits(rng, monkeypatch, dropout, chunk_rows, variant):
    for module in (block_module, recompute_module):
        monkeypatch.setattr(module, "CHUNK_ROWS", chunk_rows)
    model = make(dropout=dropout, attention_dropout=dropout, **VARIANTS[variant])
    (tokens, targets), results = batch(rng), []
    for recompute in RECOMPUTE:
        with random.use(random.RandomState(8)):
            results.append(backward(model, tokens, targets, recompute=recompute))
    (loss, gradients), *others = results
    for other, found in others:
        assert other == loss
        for name, gradient in gradients.items():
            np.testing.assert_array_equal(found[name], gradient)


def test_recomputing_holds_less(rng):
    model, (tokens, targets) = make(num_layers=6), batch(rng, (1, 64))
    held = []
    for recompute in RECOMPUTE:
        before = longnet.memory_stats()["bytes"]
        loss = model.loss(tokens, targets, recompute=recompute)
        held.append(longnet.memory_stats()["bytes"] - before)
        del loss
    none, block, kept = held
    assert block < none / 5
    assert block < kept < none / 3


def test_an_unknown_way_to_recompute(rng):
    with pytest.raises(longnet.ConfigError, match="recompute: found 'blocks', expected none, bl"):
        make().loss(*batch(rng), recompute="blocks")


def test_two_half_batches_equal_a_whole_one(rng):
    model, (tokens, targets) = make(), batch(rng, (4, 13))
    whole = backward(model, tokens, targets)
    model.zero_grad()
    losses = []
    for rows in (slice(0, 2), slice(2, 4)):
        loss = model.loss(tokens[rows], targets[rows])
        losses.append(loss.item())
        loss.backward()
    assert np.mean(losses) == pytest.approx(whole[0], rel=1e-6)
    for name, gradient in gradients(model).items():
        np.testing.assert_allclose(
            gradient / 2, whole[1][name], rtol=0, atol=2e-6 * np.abs(whole[1][name]).max()
        )


@pytest.mark.parametrize("threads", [2, 4])
def test_the_same_bits_for_any_number_of_threads(rng, threads, restore_threads):
    model, (tokens, targets) = make(), batch(rng, (2, 300))
    longnet.set_num_threads(1)
    first = backward(model, tokens, targets)
    longnet.set_num_threads(threads)
    second = backward(model, tokens, targets)
    assert first[0] == second[0]
    for name in first[1]:
        np.testing.assert_array_equal(first[1][name], second[1][name])


def test_first_loss_is_that_of_guessing(rng):
    config = Config(**TINY | {"vocab_size": 256, "embed_dim": 64, "num_heads": 4})
    tokens = rng.integers(0, 256, (2, 65)).astype(np.int32)
    loss = LongNet(config, seed=0).loss(tokens[:, :-1], tokens[:, 1:]).item()
    assert math.log(256) - 0.2 < loss < math.log(256) + 1.0


def test_seeds():
    first, same, other = (LongNet(Config(**TINY), seed=s).state_dict() for s in (1, 1, 2))
    for name in first:
        np.testing.assert_array_equal(first[name], same[name])
        assert first[name].ndim == 1 or not np.array_equal(first[name], other[name])


def test_first_values_are_magneto_s():
    config = Config(
        num_layers=6, embed_dim=128, num_heads=4, segment_lengths=(4,), dilation_rates=(1,)
    )
    state = LongNet(config).state_dict()
    gamma = math.sqrt(math.log(12))
    for part, gain in (("query", 1), ("key", 1), ("value", gamma), ("out", gamma)):
        for i in range(6):
            std = state[f"blocks.{i}.mixer.{part}.weight"].std()
            assert std == pytest.approx(gain * math.sqrt(2 / 256), rel=0.05)
    for part in ("fc1", "fc2"):
        std = state[f"blocks.3.ffn.{part}.weight"].std()
        assert std == pytest.approx(gamma * math.sqrt(2 / 640), rel=0.05)
    assert state["embedding.weight"].std() == pytest.approx(128**-0.5, rel=0.05)


def test_dropout_is_off_in_eval(rng):
    model, (tokens, _) = make(dropout=0.3, attention_dropout=0.3), batch(rng)
    assert not np.array_equal(*(model.logits(tokens).data.numpy() for _ in range(2)))
    model.eval()
    with no_grad():
        np.testing.assert_array_equal(*(model.logits(tokens).data.numpy() for _ in range(2)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_activations(rng, dtype):
    config, (tokens, targets) = Config(**TINY), batch(rng, (2, 40))
    exact, half = LongNet(config, seed=2), LongNet(config, seed=2, dtype=dtype)
    expected, found = backward(exact, tokens, targets), backward(half, tokens, targets)
    eps = {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    assert half.logits(tokens).dtype == dtype
    assert found[0] == pytest.approx(expected[0], rel=2 * eps)
    largest = max(np.linalg.norm(gradient) for gradient in expected[1].values())
    for name, gradient in found[1].items():
        assert gradient.dtype == np.float32
        error = np.linalg.norm(gradient - expected[1][name])
        assert error < eps * (5 * np.linalg.norm(expected[1][name]) + largest), name


def test_tensors_are_taken_as_tokens(rng):
    model, (tokens, targets) = make(), batch(rng)
    loss = model.loss(tokens, targets).item()
    assert model.loss(Tensor(tokens.copy()), Tensor(targets.copy())).item() == loss
    assert model.loss(tokens.astype(np.int64), targets.astype(np.int64)).item() == loss


def test_bad_input_is_named(rng):
    model, (tokens, targets) = make(), batch(rng)
    for bad in (tokens[0], tokens[:, :0], tokens[None]):
        with pytest.raises(longnet.ShapeError, match=r"tokens: found shape \("):
            model.logits(bad)
    with pytest.raises(
        longnet.ShapeError, match=r"targets: found shape \(2, 12\), expected \(2, 13"
    ):
        model.loss(tokens, targets[:, 1:])
    with pytest.raises(longnet.LongNetError, match=r"11\b"):
        model.loss(np.full_like(tokens, 11), targets)
    with pytest.raises(longnet.DTypeError, match="float32"):
        model.loss(tokens.astype(np.float32), targets)
    for wrong in ((tokens.tolist(), targets), (tokens, targets.tolist())):
        with pytest.raises(longnet.DTypeError, match="list, expected a longnet"):
            model.loss(*wrong)
    with pytest.raises(longnet.ConfigError, match=r"config: found dict, expected longnet\.Config"):
        LongNet(TINY)
    with pytest.raises(longnet.CheckpointError, match="found list, expected an array"):
        model.load_state_dict({name: a.tolist() for name, a in model.state_dict().items()})
    with pytest.raises(longnet.DTypeError, match="found 'float8', expected float32"):
        LongNet(Config(**TINY), dtype="float8")
    with pytest.raises(longnet.ShapeError, match="cu_seqlens"):
        model.loss(tokens, targets, cu_seqlens=np.array([0, 13]))
