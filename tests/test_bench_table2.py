"""The comparisons of the paper: equal text and arithmetic, blockwise attention, resuming, verdicts;
on models of a second."""

import json
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from longnet import blas
from longnet._core import Tensor
from longnet.autograd import Variable, no_grad
from longnet.bench.figures import draw
from longnet.bench.paper import context, orderings, runs, table2
from longnet.bench.paper.blockwise import blockwise
from longnet.bench.paper.cells import (
    SMALL,
    Cell,
    Scale,
    attention_flops,
    model_config,
    run_config,
    select,
)
from longnet.bench.paper.results import FILE, Results, perplexity
from longnet.bench.paper.score import nats_after_prompts, nats_by_window
from longnet.bench.paper.text import open_text
from longnet.bench.paper.training import SharedBatches
from longnet.config import Config
from longnet.data import Batches, open_source
from longnet.errors import ConfigError, DataError, ShapeError
from longnet.model import LongNet
from longnet.train import record

TINY = Scale(
    unit=16, steps=4, step_tokens=512, num_layers=1, embed_dim=32, num_heads=2, windows=3, scored=8,
)  # fmt: skip
VOCAB = 256


@pytest.fixture
def data(tmp_path, rng):
    """A folder of texts whose bytes are not alike."""
    folder = tmp_path / "code"
    folder.mkdir()
    words = [bytes(rng.integers(97, 123, rng.integers(2, 8), np.uint8)) for _ in range(40)]
    for name, size in (("train.txt", 9000), ("validation.txt", 2000)):
        text = b" ".join(words[i] for i in rng.integers(0, 40, size))
        (folder / name).write_bytes(text[:size])
    return folder


@pytest.fixture
def tiny(monkeypatch, restore_threads):
    """Runs of a second, without their loss curves, on one processor."""
    monkeypatch.setattr(runs, "SMALL", TINY)
    monkeypatch.setattr(record, "plot_loss", lambda *unused: None)
    blas.set_num_threads(1)


def command(module, data, *more):
    folder = data.parent / "runs"
    return module.main(
        ["--data", str(data), "--small", "--device", "cpu", "--runs", str(folder), *more]
    )


def records(data):
    return [json.loads(line) for line in (data.parent / "runs" / FILE).open()]


# What is compared


@pytest.mark.parametrize("scale", [Scale(), SMALL], ids=["full", "small"])
def test_runs_are_equal_in_all_but_the_attention(scale, tmp_path):
    counts = set()
    for cell in (*table2.CELLS, *context.CELLS):
        config = run_config(
            cell, scale, train=tmp_path, validation=tmp_path, out_dir=tmp_path, device="cpu"
        )
        train = config.train
        counts.add(config.model.num_parameters())
        assert train.batch_size * train.sequence_length * train.steps == scale.tokens
        assert train.sequence_length == cell.thousands * scale.unit
        assert config.model.position == "xpos"
    assert len(counts) == 1


@pytest.mark.parametrize("scale", [Scale(), SMALL], ids=["full", "small"])
def test_sparse_has_the_operations_of_longnet(scale):
    for k in (8, 16, 32):
        sparse, longnet = (model_config(Cell(m, k), scale) for m in ("sparse", "longnet"))
        length = k * scale.unit
        blocks = k // 2
        column = 14 * 2 * scale.unit * blocks * (blocks - 1) // 2 * scale.embed_dim
        off = attention_flops(sparse, length) - attention_flops(longnet, length)
        assert abs(off) <= 0.5 * column * scale.num_layers
        assert sparse.levels(0)[0][0] == 2 * scale.unit


def test_only_names_runs():
    cells = table2.CELLS
    assert select(cells, None) == cells
    assert [c.name for c in select(cells, "longnet-32k,dense-2k")] == ["longnet-32k", "dense-2k"]
    with pytest.raises(ConfigError, match=r"--only: found 'dense-4k', expected some of dense-2k, "):
        select(cells, "dense-4k")


def test_scales_that_do_not_fit():
    with pytest.raises(ConfigError, match="--steps: found 0, expected at least 1"):
        Scale(steps=0)
    with pytest.raises(ConfigError, match=r"found 40000, expected a multiple .* 32768"):
        Scale(step_tokens=40000)


def test_every_run_reads_the_same_text_once(data, tmp_path):
    text = open_text(data, tmp_path, TINY)
    source = open_source(str(text.train), "train", validation=str(text.validation), format="text")
    assert len(source) == TINY.tokens + TINY.longest + 1
    for k in context.LENGTHS:
        length = k * TINY.unit
        batches = Batches(source, TINY.step_tokens // length, length, TINY.seed)
        for _ in range(TINY.steps):
            next(batches)
        assert batches.state_dict()["epoch"] == 0
    whole = (data / "train.txt").read_bytes()
    part = text.train.read_bytes()
    assert part[:30] == whole[:30]
    assert part[-30:] in whole[len(whole) * 62 // 64 :]
    assert text.fingerprint == open_text(data, tmp_path, TINY).fingerprint


def test_an_update_has_the_same_text_in_all_runs(data, tmp_path):
    text = open_text(data, tmp_path, TINY)
    source = open_source(str(text.train), "train", validation=str(text.validation), format="text")

    def batches(k):
        length = k * TINY.unit
        shape = TINY.step_tokens // length, length
        return SharedBatches(source, *shape, Cell("dense", k).window(TINY), TINY.seed)

    plain = Batches(source, TINY.step_tokens // TINY.longest, TINY.longest, TINY.seed)
    each = [batches(k) for k in context.LENGTHS]
    for _ in range(TINY.steps):
        inputs, targets = next(plain)
        for k, shared in zip(context.LENGTHS, each, strict=True):
            found = next(shared)
            assert found[0].shape == found[1].shape == (TINY.step_tokens // (k * TINY.unit), k * 16)
            np.testing.assert_array_equal(found[0].ravel(), inputs.ravel())
            np.testing.assert_array_equal(found[1].ravel(), targets.ravel())
    assert Cell("dense", 2).window(replace(TINY, same_batches=False)) == 2 * TINY.unit
    with pytest.raises(
        DataError, match="windows of 512 tokens: found a batch of 3 x 256, expected"
    ):
        SharedBatches(source, 3, 256, 512, 0)


def test_texts_that_are_too_short(data, tmp_path):
    size = (data / "validation.txt").stat().st_size
    (data / "validation.txt").write_bytes(bytes(TINY.longest + 1))
    with pytest.raises(DataError, match="513 bytes, expected at least two windows of 512"):
        open_text(data, tmp_path, TINY)
    (data / "train.txt").write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"train\.txt: {size} bytes, expected at least 2561"):
        open_text(data, tmp_path, TINY)
    with pytest.raises(DataError, match=r"nowhere/train\.txt: cannot be read: No such file"):
        open_text(data.parent / "nowhere", tmp_path, TINY)


# Blockwise attention


def seen(mixer, half, block, columns, heads, n):
    """Which keys each query of each head sees, (H, N, N), from the definition."""
    i, j = np.mgrid[:n, :n]
    begin = np.maximum(i // half - 1, 0) * half  # of the two blocks, where the model's pattern is
    near = (j <= i) & (j >= begin)
    if mixer == "dense":
        return np.broadcast_to(near, (heads, n, n))
    inside, own = (j - begin) % block, (j - begin) // block == (i - begin) // block
    found = []
    for h in range(heads):
        last = block - h % (block // columns) * columns
        found.append(near & (own | ((inside >= last - columns) & (inside < last))))
    return np.stack(found)


@pytest.mark.parametrize("mixer", ["dense", "sparse"])
def test_blockwise_attention_is_its_definition(mixer, rng):
    B, N, H, D, half = 2, 80, 2, 16, 16
    config = Config(
        num_layers=1, embed_dim=H * D, num_heads=H, segment_lengths=[8], dilation_rates=[1],
        mixer=mixer, summary_columns=3, position="none",
    )  # fmt: skip
    model = LongNet(config)
    mix = model.blocks[0].mixer
    own = type(mix).attend
    q, k, v = (rng.standard_normal((B, N, H, D), np.float32) for _ in range(3))
    options = {"lengths": None, "cu_seqlens": None, "seed": 0}
    variables = [Variable(Tensor(x)) for x in (q, k, v)]
    with blockwise(model, 2 * half):
        found = mix.attend(*variables, N, None, **options).data.numpy()
        with pytest.raises(ShapeError, match="found 24 rows, expected a multiple of 16 above it"):
            mix.attend(*variables, 24, None, **options)
    assert mix.attend.__func__ is own
    scores = np.einsum("bihd,bjhd->bhij", q.astype(float), k.astype(float)) / math.sqrt(D)
    scores[:, ~seen(mixer, half, 8, 3, H, N)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhij,bjhd->bihd", weights, v.astype(float))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["dense-2k", "sparse-8k"])
def test_positions_in_blocks_are_those_of_the_training(name, rng):
    """One layer, so that a row's logits depend on its two blocks alone."""
    model_name, _, k = name.partition("-")
    cell = Cell(model_name, int(k[:-1]))
    model, trained = LongNet(model_config(cell, TINY)), cell.length(TINY)
    tokens = rng.integers(0, VOCAB, (1, TINY.longest)).astype(np.int32)
    half = trained // 2
    with no_grad(), blockwise(model, trained):
        whole = model.logits(tokens).data.numpy()[0]
    with no_grad():
        for begin in range(0, TINY.longest - half, half):
            window = np.ascontiguousarray(tokens[:, begin : begin + trained])
            alone = model.logits(window).data.numpy()[0]
            first = half if begin else 0
            expected = alone[first:]
            found = whole[begin + first : begin + trained]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


# Scores


def test_scores_are_those_of_the_logits(rng):
    model = LongNet(model_config(Cell("longnet", 32), TINY))
    tokens = rng.integers(0, VOCAB, (3, TINY.longest + 1)).astype(np.int32)
    inputs, targets = (np.ascontiguousarray(x) for x in (tokens[:, :-1], tokens[:, 1:]))

    def losses(x, y):
        with no_grad():
            logits = model.logits(np.ascontiguousarray(x)).data.numpy().astype(float)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        return -np.take_along_axis(logits, y[..., None], -1)[..., 0]

    length = 4 * TINY.unit
    found = nats_by_window(model, inputs, targets, length, None)
    expected = losses(inputs.reshape(-1, length), targets.reshape(-1, length)).reshape(3, -1)
    np.testing.assert_allclose(found, expected.mean(1), rtol=1e-5)

    found = nats_after_prompts(model, inputs, targets, length, 5)
    expected = losses(inputs[:, -length:], targets[:, -length:])[:, -5:]
    np.testing.assert_allclose(found, expected.mean(1), rtol=1e-5)
    assert model.training


def test_only_what_was_trained_short_is_read_in_blocks(rng):
    model = LongNet(model_config(Cell("dense", 2), TINY))
    tokens = rng.integers(0, VOCAB, (1, TINY.longest + 1)).astype(np.int32)
    inputs, targets = (np.ascontiguousarray(x) for x in (tokens[:, :-1], tokens[:, 1:]))

    def read(length, trained):
        return nats_by_window(model, inputs, targets, length, trained)

    short, long = 2 * TINY.unit, TINY.longest
    assert read(short, short) == read(short, None)
    assert read(long, long) == read(long, None)
    assert read(long, short) != read(long, None)


# Commands


@pytest.mark.usefixtures("tiny")
def test_the_table_grows_run_by_run(data, capsys):
    folder = data.parent / "runs"
    assert command(table2, data, "--only", "dense-2k,longnet-32k") == 0
    first = records(data)
    assert [r["cell"] for r in first] == ["dense-2k", "longnet-32k"]
    for run in first:
        assert set(run["nats"]) == {"2", "8", "32"}
        assert all(len(losses) == 3 for losses in run["nats"].values())
        assert run["parameters"] == LongNet(model_config(Cell("dense", 2), TINY)).num_parameters()
    assert command(table2, data, "--only", "sparse-32k,dense-2k") == 0
    assert records(data)[:2] == first
    assert [r["cell"] for r in records(data)[2:]] == ["sparse-32k"]
    printed = capsys.readouterr().out
    assert printed.endswith((folder / "table2.txt").read_text())
    text = (folder / "table2.txt").read_text()
    value = perplexity(np.array(first[1]["nats"]["32"]))
    assert f"{value:.3f}" in next(x for x in text.splitlines() if x.startswith("longnet-32k "))
    assert "longnet-32k below sparse-32k at 32K: " in text
    assert (folder / "table2.png").stat().st_size > 1000
    found = Results(folder)
    settings = first[0]["settings"]
    assert found.find(Cell("dense", 2), settings) == first[0]
    for other in ({"steps": 3}, {"data": "another text"}, {"device": "cuda"}):
        assert found.find(Cell("dense", 2), settings | other) is None


@pytest.mark.usefixtures("tiny")
def test_context(data, capsys):
    """It shares its runs with the table."""
    assert command(context, data, "--only", "longnet-1k,longnet-32k") == 0
    found = records(data)
    assert found[0]["prompt_nats"] == {}
    assert set(found[1]["prompt_nats"]) == {"1", "2", "4", "8", "16", "32"}
    text = capsys.readouterr().out
    assert "longnet-32k below longnet-1k: " in text
    assert "longnet-32k reading 32K below 16K: " in text
    for name in ("context_training.png", "context_prompt.png"):
        assert (data.parent / "runs" / name).stat().st_size > 1000
    assert command(table2, data, "--only", "longnet-32k") == 0
    assert records(data) == found


@pytest.mark.usefixtures("tiny")
def test_a_run_that_was_stopped_goes_on(data, monkeypatch, capsys):
    assert command(table2, data, "--only", "longnet-8k") == 0
    (whole,) = records(data)
    (data.parent / "runs" / FILE).unlink()
    for folder in (data.parent / "runs").glob("longnet-8k-*"):
        folder.rename(data.parent / "unbroken")

    class Interrupted(runs.Run):
        def _update(self, backlog):
            super()._update(backlog)
            if self.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "Run", Interrupted)
        code = command(table2, data, "--only", "longnet-8k,longnet-16k")
    assert code == 128 + signal.SIGTERM
    assert not (data.parent / "runs" / FILE).exists()
    assert not list((data.parent / "runs").glob("longnet-16k-*"))
    assert "stopped; the same command goes on" in capsys.readouterr().err
    assert command(table2, data, "--only", "longnet-8k") == 0
    assert "step 2/4" not in capsys.readouterr().err
    assert records(data)[0]["nats"] == whole["nats"]


@pytest.mark.usefixtures("tiny")
def test_no_run_begins_when_the_time_is_up(data):
    before = signal.getsignal(signal.SIGTERM)
    assert command(table2, data, "--minutes", "0") == 0
    assert not (data.parent / "runs" / FILE).exists()
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_results_that_are_none(tmp_path):
    (tmp_path / FILE).write_text('{"cell": "dense-2k", "settings": {}, "nats": {}}\n{"cell": 3')
    with pytest.raises(DataError, match="line 2: expected a run's record"):
        Results(tmp_path)


# Verdicts


def made_up(sign, noise, rng):
    """Runs whose losses are the paper's, or stand in the reversed order."""
    return {
        name: {
            "nats": {
                str(k): list(sign * math.log(value) + noise * rng.standard_normal(50))
                for k, value in zip(runs.TESTED, values, strict=True)
            }
        }
        for name, values in orderings.PAPER.items()
    }


@pytest.mark.parametrize(
    ("sign", "noise", "verdict"),
    [(1, 1e-4, "agrees"), (-1, 1e-4, "disagrees"), (1, 100.0, "undecided")],
)
def test_verdicts(sign, noise, verdict, rng):
    found = list(orderings.of_paper(made_up(sign, noise, rng)))
    assert len(found) == 3 * 21 + 7 * 3
    verdicts = [o.verdict for o in found]
    share = verdicts.count(verdict) / len(found)
    assert share == 1 if noise < 1 else share > 0.8
    counts = orderings.summary(found)
    assert [int(sum(map(int, line[1:]))) for line in counts[1:]] == [21, 21, 21, 21]


def test_what_must_hold():
    losses = {"longnet-32k": 1.0, "sparse-32k": 1.1, "longnet-16k": 0.9, "longnet-8k": 0.9}
    found = orderings.expected(
        {name: {"nats": {"32": [x, x + 0.5, x]}} for name, x in losses.items()}
    )
    assert [o.verdict for o in found] == ["agrees", "disagrees", "undecided"]


def test_errors_are_one_line(data, capsys):
    with pytest.raises(SystemExit) as end:
        command(table2, data, "--only", "longnet-64k")
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("table2: --only: found 'longnet-64k', expected some ")


def test_draw_says_what_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"a\.png: cannot be written"):
        draw(tmp_path / "file" / "a.png", {"": {"dense": [(1, 1)]}}, x="", y="")
