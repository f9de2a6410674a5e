"""Generation: which tokens may be chosen, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from longnet import generate as module
from longnet.config import Config
from longnet.errors import ConfigError, DataError, LongNetError
from longnet.generate import generate
from longnet.model import LongNet

VOCAB = 19


@pytest.fixture(scope="module")
def model():
    return LongNet(
        Config(
            vocab_size=VOCAB,
            num_layers=2,
            embed_dim=32,
            num_heads=2,
            segment_lengths=(8, 16),
            dilation_rates=(1, 2),
            dropout=0.5,
        )
    )


def choices(logits, count=4000, **options):
    """Frequencies of the tokens chosen from one position's logits, (V,)."""
    arguments = {"temperature": 1.0, "top_k": None, "top_p": 1.0, **options}
    random = np.random.Generator(np.random.Philox(key=1))
    chosen = [module._choose(np.array(logits), random=random, **arguments) for _ in range(count)]
    return np.bincount(chosen, minlength=len(logits)) / count


def softmax(logits):
    weights = np.exp(np.array(logits) - max(logits))
    return weights / weights.sum()


def test_each_token_is_the_best_after_all_before_it(model):
    prompt = [3, 1, 4, 1, 5]
    new = generate(model, prompt, 6, temperature=0)
    tokens = np.array([*prompt, *new], np.int32)
    model.eval()
    logits = model.logits(tokens[None]).data.numpy()[0]
    model.train()
    assert new.dtype == np.int32
    assert new.tolist() == logits[4:-1].argmax(-1).tolist()


def test_the_seed_decides(model):
    runs = [generate(model, [1, 2], 30, seed=seed, temperature=2.0) for seed in (7, 7, 8)]
    assert runs[0].tolist() == runs[1].tolist()
    assert runs[0].tolist() != runs[2].tolist()
    assert all(len(run) == 30 and run.min() >= 0 and run.max() < VOCAB for run in runs)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode(model, training):
    model.train(training)
    generate(model, [1], 2)
    assert model.training is training
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


def test_frequencies_are_the_probabilities():
    logits = [0.0, 1.0, -1.0, 2.0]
    assert choices(logits) == pytest.approx(softmax(logits), abs=0.03)
    assert choices(logits, temperature=0.5) == pytest.approx(
        softmax([2 * x for x in logits]), abs=0.03
    )


def test_top_k():
    logits = [0.0, 1.0, -1.0, 2.0]
    found = choices(logits, top_k=2)
    assert found[[0, 2]].tolist() == [0, 0]
    assert found[3] == pytest.approx(softmax([1.0, 2.0])[1], abs=0.03)
    assert choices(logits, top_k=1)[3] == 1
    assert choices(logits, top_k=99) == pytest.approx(softmax(logits), abs=0.03)


@pytest.mark.parametrize(
    ("top_p", "allowed"),
    [(0.3, [3]), (0.5, [3]), (0.51, [3, 1]), (0.75, [3, 1]), (0.8, [3, 1, 0]), (1.0, [3, 1, 0, 2])],
)
def test_top_p(top_p, allowed):
    logits = np.log([0.125, 0.25, 0.125, 0.5])
    found = choices(logits, top_p=top_p)
    assert set(np.flatnonzero(found)) == set(allowed)


def test_small_temperatures_and_far_logits_stay_finite():
    assert choices([0.0, 1e4, -1e30, 5.0], 50, temperature=1e-300).tolist() == [0, 1, 0, 0]
    assert choices([3.0, 3.0, 2.0, 1.0], 50, temperature=0).tolist() == [1, 0, 0, 0]


def test_logits_that_are_not_finite(model, monkeypatch):
    bad = SimpleNamespace(training=True, eval=lambda: None, train=lambda mode: None)
    monkeypatch.setattr(module, "_last_logits", lambda model, tokens: np.array([0.0, np.nan]))
    with pytest.raises(DataError, match="logits: NaN"):
        generate(bad, [0], 1)


@pytest.mark.parametrize("prompt", [[], [[1, 2]], [1.5], 3, [-1], [2**31]])
def test_prompts_that_are_refused(model, prompt):
    with pytest.raises(DataError, match="prompt_tokens: "):
        generate(model, prompt, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature: found -0.1, expected a finite value of at least 0"),
        ({"temperature": float("nan")}, "temperature: found nan"),
        ({"temperature": float("inf")}, "temperature: found inf"),
        ({"top_k": 0}, "top_k: found 0, expected at least 1"),
        ({"top_p": 0.0}, r"top_p: found 0.0, expected a probability in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p: found 1.5"),
        ({"top_p": float("nan")}, "top_p: found nan"),
        ({"seed": -1}, "seed: found -1"),
        ({"max_new_tokens": -1}, "max_new_tokens: found -1, expected at least 0"),
    ],
)
def test_options_that_are_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        generate(model, [1], **{"max_new_tokens": 1, **options})
