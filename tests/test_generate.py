"""Generation over a cache against passes over everything, and what is refused."""

import numpy as np
import pytest

import longnet
from longnet import Config, LongNet
from longnet.autograd import no_grad
from longnet.errors import ConfigError, DataError, LongNetError, ShapeError
from longnet.generate import generate, generate_batch, read, stream
from longnet.generate.sampling import Sampling
from longnet.mixers.attention import Attention

VOCAB = 19
SMALL = {
    "vocab_size": VOCAB,
    "num_layers": 2,
    "embed_dim": 64,
    "num_heads": 4,
    "ffn_dim": 64,
    "dropout": 0.5,
}
# Levels whose segments end many times in 600 rows, and r that do not divide w.
VARIANTS = {
    "xpos": {"segment_lengths": (16, 48, 240), "dilation_rates": (1, 3, 7)},
    "rope, grouped": {
        "segment_lengths": (10, 35, 150),
        "dilation_rates": (1, 2, 6),
        "offsets": "grouped",
        "position": "rope",
        "num_kv_heads": 2,
    },
    "none, one key head": {
        "segment_lengths": (12, 50),
        "dilation_rates": (2, 3),
        "position": "none",
        "num_kv_heads": 1,
        "norm_placement": "pre",
    },
    "levels of layers": {
        "segment_lengths": ((32, 64), (8, 512)),
        "dilation_rates": ((1, 2), (1, 16)),
        "activation": "swiglu",
        "norm": "rms_norm",
    },
    "dense": {"mixer": "dense", "position": "rope", "num_kv_heads": 2},
    "dense, xpos": {"mixer": "dense"},
    "sliding": {"mixer": "sliding", "window": 37, "num_kv_heads": 2},
    "sparse": {
        "mixer": "sparse",
        "segment_lengths": (24,),
        "dilation_rates": (1,),
        "summary_columns": 5,
        "position": "rope",
        "num_kv_heads": 2,
    },
}
# Tokens that are generated greedily.
COUNTS = {
    "xpos": 600,
    "rope, grouped": 600,
    "none, one key head": 200,
    "levels of layers": 300,
    "dense": 200,
    "sliding": 200,
    "sparse": 200,
}
# Further ways to say where a token stands.
POSITIONS = {
    "alibi": {**VARIANTS["rope, grouped"], "position": "alibi"},
    "sinusoidal": {**VARIANTS["xpos"], "position": "sinusoidal"},
    "yarn": {
        **VARIANTS["rope, grouped"],
        "position_scaling": "yarn",
        "position_factor": 4.0,
        "position_length": 64,
    },
}


def make(variant="xpos", **options):
    dtype, device = options.pop("dtype", "float32"), options.pop("device", "cpu")
    config = Config(**SMALL | (VARIANTS | POSITIONS)[variant] | options)
    return LongNet(config, seed=3, dtype=dtype, device=device)


def logits_of(model, tokens, **options):
    """Logits (N, V) of a sequence, without dropout."""
    training = model.training
    model.eval()
    with no_grad():
        logits = model.logits(np.asarray(tokens, np.int32)[None], **options).data
    model.train(training)
    return np.asarray(logits.to("cpu"))[0].astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.mark.parametrize(("variant", "count"), COUNTS.items())
def test_each_token_is_the_best_of_a_pass_over_all_before_it(variant, count, device):
    model, prompt = make(variant, device=device), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    weights = model.state_dict()  # made larger, or it would soon repeat itself
    model.load_state_dict({name: a * (3 if a.ndim == 2 else 1) for name, a in weights.items()})
    new = generate(model, prompt, count, temperature=0, piece=7)
    logits = logits_of(model, [*prompt, *new[:-1]])[len(prompt) - 1 :]
    assert new.dtype == np.int32
    assert len({tuple(new[i : i + 8].tolist()) for i in range(count - 7)}) > 0.8 * count
    chosen, best = logits[np.arange(count), new], logits.max(-1)
    # Where two are as good as equal, either may be it.
    np.testing.assert_allclose(chosen, best, rtol=0, atol=1e-4 * np.abs(logits).max())
    assert (new == logits.argmax(-1)).sum() >= count - 2


def test_each_token_is_drawn_from_a_pass_over_all_before_it(model):
    new = generate(model, [1, 2], 200, temperature=0.7, top_k=9, top_p=0.9, seed=2)
    logits = logits_of(model, [1, 2, *new[:-1]])[1:]
    rule = Sampling(temperature=0.7, top_k=9, top_p=0.9, seed=2)
    random = rule.generators(1)[0]
    assert new.tolist() == [rule.choose(row, random) for row in logits]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("variant", [*VARIANTS, *POSITIONS])
def test_logits_at_every_position_are_those_of_a_whole_pass(rng, variant, device, dtype):
    model, tokens = make(variant, device=device, dtype=dtype), rng.integers(0, VOCAB, 300)
    expected, cache, found, at = logits_of(model, tokens), model.cache(), [], 0
    while at < len(tokens):
        n = int(rng.choice([1, 1, 1, 4, 31, 60]))
        found.append(logits_of(model, tokens[at : at + n], cache=cache))
        at += n
    assert cache.seen == [len(tokens)]
    error = np.abs(np.concatenate(found) - expected).max() / np.abs(expected).max()
    # Through two layers; in the narrow dtypes a rounding of an activation is 2^-8 or 2^-11.
    assert error < {"float32": 2e-5, "bfloat16": 5e-2, "float16": 8e-3}[dtype]


@pytest.mark.parametrize(
    "variant", ["xpos", "rope, grouped", "dense", "sliding", "sparse", "alibi", "sinusoidal"]
)
def test_prompts_of_a_batch_are_each_as_alone(rng, variant, device):
    model = make(variant, device=device)
    prompts = [rng.integers(0, VOCAB, n) for n in (1, 40, 17, 40)]
    options = {"temperature": 1.5, "piece": 16}
    together = generate_batch(model, prompts, 30, seed=5, **options)
    for b, prompt in enumerate(prompts):
        alone = generate(model, prompt, 30, seed=5 + b, **options)
        assert together[b].tolist() == alone.tolist()


def test_sequences_of_a_batch_end_by_themselves(rng, model):
    prompts = [rng.integers(0, VOCAB, n) for n in (3, 8, 5)]
    whole = generate_batch(model, prompts, 50, temperature=2.0)
    stop = int(whole[1][6])
    parts = generate_batch(model, prompts, 50, temperature=2.0, stop_token=stop)
    for part, row in zip(parts, whole, strict=True):
        row = row.tolist()
        end = row.index(stop) + 1 if stop in row else len(row)
        assert part.tolist() == row[:end]
    assert len({len(part) for part in parts}) > 1


def test_the_piece_length_changes_nothing(rng, model):
    prompt = rng.integers(0, VOCAB, 200)
    expected = logits_of(model, prompt)[-1]
    for piece in (1, 10, 64, 200, 5000):
        cache = model.cache()
        read(model, cache, [prompt], piece=piece)
        np.testing.assert_allclose(cache.logits[0], expected, rtol=0, atol=2e-5)


def test_memory_does_not_grow_with_the_length(rng, model):
    cache = model.cache()
    for _ in range(3):
        before = longnet.memory_stats()["bytes"]
        read(model, cache, [rng.integers(0, VOCAB, 1000)], piece=100)
        grown = longnet.memory_stats()["bytes"] - before
    assert grown < 10_000
    longnet.reset_peak_memory()
    read(model, cache, [rng.integers(0, VOCAB, 1000)], piece=100)
    in_pieces = longnet.memory_stats()["peak_bytes"] - before
    longnet.reset_peak_memory()
    read(model, cache, [rng.integers(0, VOCAB, 1000)], piece=1000)
    assert in_pieces < (longnet.memory_stats()["peak_bytes"] - before) / 3


def test_a_cache_goes_on(model):
    prompt = [3, 1, 4, 1, 5]
    expected = generate(model, prompt, 30, temperature=0).tolist()
    cache = model.cache()
    first = generate(model, prompt, 10, temperature=0, cache=cache).tolist()
    assert cache.seen == [len(prompt) + 9]  # the last token is still to be read
    second = generate(model, first[-1:], 20, temperature=0, cache=cache).tolist()
    assert first + second == expected
    # and after a prompt that was read, without another
    cache = model.cache()
    read(model, cache, [prompt])
    assert generate(model, [], 30, temperature=0, cache=cache).tolist() == expected


def test_tokens_come_one_by_one(model):
    tokens = stream(model, [1, 2], 10**9, seed=3)
    first = [next(tokens) for _ in range(5)]
    assert first == generate(model, [1, 2], 5, seed=3).tolist()
    assert model.generate([1, 2], 5, seed=3).tolist() == first


def test_fewer_tokens_of_the_vocabulary(model):
    found = list(stream(model, [1, 2], 100, temperature=5.0, vocab_size=4))
    assert set(found) == {0, 1, 2, 3}


def test_the_seed_decides(model):
    runs = [generate(model, [1, 2], 30, seed=seed, temperature=2.0) for seed in (7, 7, 8)]
    assert runs[0].tolist() == runs[1].tolist()
    assert runs[0].tolist() != runs[2].tolist()
    assert all(len(run) == 30 and run.min() >= 0 and run.max() < VOCAB for run in runs)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode(model, training):
    model.train(training)
    tokens = stream(model, [1], 2)
    assert [model.training for _ in tokens] == [training, training]
    with pytest.raises(LongNetError):
        generate(model, [VOCAB], 1)
    assert model.training is training
    model.train()


def test_a_stop_token_ends_early(model):
    whole = generate(model, [1, 2], 30, seed=3)
    stop = int(whole[4])
    part = generate(model, [1, 2], 30, seed=3, stop_token=stop)
    assert part.tolist() == whole[: whole.tolist().index(stop) + 1].tolist()


def test_no_new_tokens(model):
    assert generate(model, [1], 0).shape == (0,)


@pytest.mark.parametrize("prompt", [[], [[1, 2]], [1.5], 3, [-1], [VOCAB], [2**31]])
def test_prompts_that_are_refused(model, prompt):
    for call in (generate, stream):
        with pytest.raises(DataError, match="prompt_tokens: "):
            call(model, prompt, 1)
    with pytest.raises(DataError, match="prompt_tokens: "):
        generate_batch(model, [[1], prompt], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 1.5}, "top_p: found 1.5"),
        ({"max_new_tokens": -1}, "max_new_tokens: found -1, expected at least 0"),
        ({"piece": 0}, "piece: found 0, expected at least 1"),
    ],
)
def test_options_that_are_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        stream(model, [1], **{"max_new_tokens": 1, **options})


def test_batches_that_are_refused(model):
    with pytest.raises(DataError, match="prompts: found none"):
        generate_batch(model, [], 1)
    with pytest.raises(ConfigError, match="cache: found a batch of 2, expected 1"):
        generate(model, [1], 1, cache=model.cache(2))
    with pytest.raises(ConfigError, match="prompts: found 1, expected 2"):
        read(model, model.cache(2), [[1]])
    with no_grad(), pytest.raises(ShapeError, match="a batch of 3, expected 2"):
        model.hidden(np.zeros((3, 1), np.int32), cache=model.cache(2))
    with no_grad(), pytest.raises(ShapeError, match=r"lengths: found .* 2 numbers from 0 to 4"):
        model.hidden(np.zeros((2, 4), np.int32), cache=model.cache(2), lengths=[4, 5])


def test_a_cache_wants_no_gradient_and_no_ranks(model):
    tokens = np.zeros((1, 2), np.int32)
    with pytest.raises(LongNetError, match="expected a call inside no_grad"):
        model.hidden(tokens, cache=model.cache())
    with no_grad(), pytest.raises(ConfigError, match="found comm or start beside cache"):
        model.hidden(tokens, cache=model.cache(), start=1)


def test_a_cache_of_which_a_pass_was_interrupted_is_refused(model, monkeypatch):
    cache = model.cache()
    generate(model, [1, 2, 3], 3, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(model.blocks[1], "forward", lambda *unused, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(model, [4], 2, cache=cache)
    with pytest.raises(LongNetError, match="expected one of which no pass was interrupted"):
        generate(model, [4], 2, cache=cache)


def test_a_mixer_without_a_cache_is_named(model, monkeypatch):
    monkeypatch.delattr(Attention, "cache")
    with pytest.raises(ConfigError, match="mixer: found Dilated, expected one with a cache"):
        generate(model, [1], 1)


def test_xpos_of_dense_attention_says_how_far_it_reaches():
    model = make("dense, xpos", xpos_scale_base=1.0, segment_lengths=(16,), dilation_rates=(1,))
    limit = int(2 * 80 / np.log(1.4 / 0.4))
    generate(model, np.zeros(limit - 1, int), 2)
    with pytest.raises(ConfigError, match=rf"xpos_scale_base: found 1.0, .* of {limit + 1},"):
        generate(model, np.zeros(limit - 1, int), 3)
