"""A model's loss over windows, beside the sum over tokens that it stands for."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from longnet.autograd import is_recording
from longnet.config import Config
from longnet.errors import DataError
from longnet.evaluate.perplexity import evaluate
from longnet.model import LongNet
from longnet.nn import Module


@pytest.fixture(scope="module")
def model():
    return LongNet(
        Config(
            vocab_size=17,
            num_layers=1,
            embed_dim=32,
            num_heads=2,
            segment_lengths=(8,),
            dilation_rates=(1,),
            dropout=0.5,
        )
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_it_is_the_mean_over_all_tokens(model, rng, batch_size, chunk):
    inputs, targets = rng.integers(0, 17, (2, 5, 13)).astype(np.int32)
    model.eval()
    logits = model.logits(inputs).data.numpy().astype(np.float64)
    model.train()
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(log_p, targets[..., None].astype(np.int64), -1).sum()
    found = evaluate(model, inputs, targets, num_bytes=150, batch_size=batch_size, chunk=chunk)
    assert found.loss == pytest.approx(nats / 65, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / 65), rel=1e-4)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 150, rel=1e-5)
    assert model.training


class Counting(Module):
    """A model whose loss says how it was called."""

    def __init__(self):
        self.modes = []

    def loss(self, inputs, targets, chunk):
        self.modes.append((self.training, is_recording()))
        return SimpleNamespace(item=lambda: 1000.0)


def test_no_dropout_no_tape_and_the_mode_comes_back():
    model = Counting()
    windows = np.zeros((3, 4), np.int32)
    found = evaluate(model, windows, windows)
    assert model.modes == [(False, False)] * 3
    assert model.training
    assert found.loss == 1000
    assert found.perplexity == math.inf
    assert found.bits_per_byte is None


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "message"),
    [
        ((2, 3), (2, 4), {}, r"inputs \(2, 3\) and targets \(2, 4\), expected one shape"),
        ((3,), (3,), {}, r"inputs \(3,\)"),
        ((0, 3), (0, 3), {}, r"at least \(1, 1\)"),
        ((1, 3), (1, 3), {"num_bytes": 0}, "num_bytes: 0, expected at least 1"),
        ((1, 3), (1, 3), {"batch_size": 0}, "batch_size: 0, expected at least 1"),
    ],
)
def test_bad_windows(inputs, targets, options, message):
    with pytest.raises(DataError, match=message):
        evaluate(Counting(), np.zeros(inputs, np.int32), np.zeros(targets, np.int32), **options)
