"""Scores of models on tasks, beside what they are made of."""

import math

import numpy as np
import pytest
import ranks

from longnet import tasks
from longnet.autograd import is_recording
from longnet.config import Config
from longnet.errors import ConfigError, DataError
from longnet.evaluate.predictions import predict
from longnet.evaluate.tasks import (
    NUM_BINS,
    Bin,
    Cell,
    evaluate_task,
    held_out,
    pass_size,
    score_examples,
)
from longnet.model import LongNet
from longnet.parallel import Mesh

SMALL = {
    "num_layers": 1,
    "embed_dim": 32,
    "num_heads": 2,
    "segment_lengths": (8, 32),
    "dilation_rates": (1, 2),
}


@pytest.fixture(scope="module")
def model():
    return LongNet(Config(vocab_size=256, dropout=0.5, **SMALL))


def batch(rng, shape=(3, 21), vocab_size=256):
    inputs, targets = rng.integers(0, vocab_size, (2, *shape)).astype(np.int32)
    targets[rng.random(shape) < 0.7] = tasks.IGNORE
    targets[1] = tasks.IGNORE  # a row of which nothing is asked
    targets[0, 0] = 3
    return inputs, targets


def test_predictions_are_those_of_all_logits(model, rng):
    inputs, targets = batch(rng)
    found = predict(model, inputs, targets)
    assert model.training
    assert is_recording()
    model.eval()
    logits = model.logits(inputs).data.numpy().astype(np.float64)
    model.train()
    asked = targets != tasks.IGNORE
    assert (found.ids == logits.argmax(-1)[asked]).all()
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    expected = -log_p[asked][np.arange(asked.sum()), targets[asked]]
    np.testing.assert_allclose(found.nats, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.zeros((3, 4), np.int32)}, r"targets: shape \(3, 4\), expected \(3, 5\)"),
        ({"targets": np.full((3, 5), -100, np.int32)}, "targets: all -100, expected one"),
        ({"targets": np.full((3, 5), 256, np.int32)}, r"targets: token id 256, expected 0\.\.255"),
        ({"targets": np.full((3, 5), -1, np.int32)}, r"targets: token id -1, expected 0\.\.255"),
    ],
)
def test_targets_that_cannot_be_predicted(model, change, message):
    arguments = {"inputs": np.zeros((3, 5), np.int32), **change}
    with pytest.raises(DataError, match=message):
        predict(model, **arguments)


@pytest.mark.parametrize(("sequence", "data"), [(2, 1), (1, 2), (2, 2), (1, 4)])
def test_ranks_predict_what_one_does(rng, sequence, data):
    inputs, targets = batch(rng)
    expected = predict(LongNet(Config(vocab_size=256, **SMALL)), inputs, targets)

    def call(world):
        own = LongNet(Config(vocab_size=256, **SMALL))
        return predict(own, inputs, targets, mesh=Mesh(world, sequence, data))

    for found in ranks.returned(ranks.run_threads(sequence * data, call)):
        assert (found.ids == expected.ids).all()
        np.testing.assert_allclose(found.nats, expected.nats, rtol=1e-5)


class Knowing:
    """In the place of `predict`: right in every row but those whose first token is even."""

    def __init__(self):
        self.shapes = []

    def __call__(self, model, inputs, targets, mesh=None):
        self.shapes.append(inputs.shape)
        asked = targets != tasks.IGNORE
        wrong = np.broadcast_to(inputs[:, :1] % 2 == 0, inputs.shape)[asked]
        ids = np.where(wrong, targets[asked] + 1, targets[asked])
        return type("P", (), {"ids": ids, "nats": np.full(ids.size, 0.5)})


@pytest.fixture
def knowing(monkeypatch):
    knowing = Knowing()
    monkeypatch.setattr("longnet.evaluate.tasks.predict", knowing)
    return knowing


def test_cells(model, knowing):
    task = tasks.get("associative_recall")
    cells = list(evaluate_task(model, task, [32, 4096], examples=5, seed=3))
    assert [(cell.length, cell.depth) for cell in cells] == [(32, None), (4096, None)]
    assert knowing.shapes == [(5, 32), (2, 4096), (2, 4096), (1, 4096)]
    for cell in cells:
        made = [task.make(held_out(3), i, cell.length) for i in range(5)]
        right = [float(example.tokens[0] % 2) for example in made]
        assert cell.score == pytest.approx(np.mean(right))
        assert cell.standard_error == pytest.approx(np.std(right, ddof=1) / math.sqrt(5))
        assert cell.shortcut == pytest.approx(
            np.mean([task.score(example, task.shortcut(example)) for example in made])
        )
        assert (cell.chance, cell.loss) == (task.chance, 0.5)
        assert cell.tokens == 5 * cell.length
        answers = sum(len(example.answers) for example in made)
        assert sum(part.answers for part in cell.bins) == answers
        every = sum(part.answers * part.score for part in cell.bins) / answers
        assert every == pytest.approx(cell.score)  # all examples have as many answers
        assert cell.to_dict()["bins"][0]["answers"] == cell.bins[0].answers


def test_cells_of_depths(model, knowing):
    task = tasks.get("needle")
    cells = list(evaluate_task(model, task, [512, 1024], [0, 0.5, 1], examples=2))
    assert [(cell.length, cell.depth) for cell in cells] == [
        (length, depth) for length in (512, 1024) for depth in (0, 0.5, 1)
    ]
    assert all(cell.bins == () for cell in cells)


def test_bins(model, knowing):
    task = tasks.get("needle")
    examples = [task.make(1, i, 1024, depth=depth) for i, depth in enumerate((0.05, 0.55, 1.0))]
    scores, nats, bins = score_examples(model, task, examples, 1024, 2)
    assert len(scores) == 3
    assert nats.size == sum(example.asked.size for example in examples)
    places = [min(int(example.depths[0] * NUM_BINS), NUM_BINS - 1) for example in examples]
    expected = [Bin(p / 10, (p + 1) / 10, 1, s) for p, s in zip(places, scores, strict=True)]
    assert list(bins) == expected


def test_one_example_has_no_error(model, knowing):
    cell = next(evaluate_task(model, tasks.get("listops"), [64], examples=1))
    assert isinstance(cell, Cell)
    assert (cell.standard_error, cell.bins) == (0.0, ())


def test_examples_are_not_those_of_a_training():
    assert held_out(0) == 2**63  # settings hold seeds below
    assert held_out(5) != held_out(6)


def test_a_pass_holds_an_example_at_least():
    assert pass_size("cpu", 1024) == 8
    assert pass_size("cuda:1", 1024) == 256
    assert pass_size("cpu", 1 << 30) == 1


@pytest.mark.parametrize(
    ("task", "lengths", "depths", "examples", "error", "message"),
    [
        ("listops", [64], None, 0, DataError, "examples: found 0, expected at least 1"),
        ("listops", [64, 8], None, 1, DataError, "task listops: length 8, expected at least 32"),
        ("listops", [64], [0.5], 1, DataError, r"task listops: depth 0\.5, expected None"),
        ("needle", [512], [0.5, 2], 1, DataError, r"task needle: depth 2, expected 0\.\.1"),
    ],
)
def test_what_cannot_be_made_is_told_at_once(
    model, knowing, task, lengths, depths, examples, error, message
):
    with pytest.raises(error, match=message):
        next(evaluate_task(model, tasks.get(task), lengths, depths, examples=examples))
    assert knowing.shapes == []


def test_a_vocabulary_that_is_too_small():
    model = LongNet(Config(vocab_size=128, **SMALL))
    with pytest.raises(ConfigError, match=r"model\.vocab_size: found 128, expected at least 129"):
        next(evaluate_task(model, tasks.get("associative_recall"), [64]))
