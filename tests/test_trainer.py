"""The training loop: what it computes, records and refuses."""

import errno
import json
import math

import numpy as np
import pytest
from tiny_run import same_arrays, tiny_config

import longnet
from longnet import blas
from longnet._core import ops
from longnet.checkpoint import load, load_latest, writer
from longnet.config import RunConfig
from longnet.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    DivergenceError,
    LongNetError,
)
from longnet.train import Trainer, read_checkpoint, read_metrics
from longnet.train import metrics as metrics_module

RECORD = {
    "step",
    "loss",
    "bits_per_byte",
    "learning_rate",
    "grad_norm",
    "tokens",
    "tokens_per_second",
    "tflops",
    "peak_memory_bytes",
    "seconds",
}


def test_a_run_learns_and_leaves_its_record(tmp_path):
    trainer = Trainer(tiny_config(tmp_path, steps=30, save_every=20, eval_every=20, log_every=2))
    outcome = trainer.train()
    assert outcome.stopped_by is None
    assert outcome.checkpoint == tmp_path / "run/step-00000030"
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "loss.png",
        "metrics.jsonl",
        "step-00000020",
        "step-00000030",
    ]
    records = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [r["step"] for r in records] == list(range(2, 31, 2))
    evaluated = [r for r in records if r.keys() > RECORD]
    assert [r["step"] for r in evaluated] == [20, 30]
    assert all(r.keys() >= RECORD for r in records)
    assert evaluated[-1]["validation_loss"] == outcome.evaluation.loss
    assert evaluated[-1]["validation_bits_per_byte"] == outcome.evaluation.bits_per_byte
    assert records[-1]["tokens"] == 30 * 2 * 24
    assert records[-1]["loss"] < records[0]["loss"] - 1
    assert records[0]["bits_per_byte"] == pytest.approx(records[0]["loss"] / math.log(2))
    assert {"data", "forward", "backward", "update", "evaluation"} <= trainer.clock.seconds.keys()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_activations_have_the_dtype_of_the_settings(tmp_path, dtype):
    """And the gradient is that of float32 but for rounding, in a batch of many tokens too."""
    options = {"sequence_length": 512, "batch_size": 8, "eval_sequences": 1, "clip": 0.5}
    runs = []
    for out, kind in (("exact", "float32"), ("run", dtype)):
        config = tiny_config(tmp_path, out, dtype=kind, steps=12, **options)
        trainer = Trainer(config.merge({"model": {"dropout": 0.0, "attention_dropout": 0.0}}))
        assert trainer.model.hidden(trainer.data.inputs[:1]).dtype == kind
        assert all(p.dtype == "float32" for p in trainer.model.parameters())
        trainer.train()
        runs.append(read_metrics(tmp_path / out / "metrics.jsonl"))
    exact, found = runs
    assert found[-1]["loss"] < found[0]["loss"] - 1
    eps = {"float32": 0.0, "bfloat16": 2**-8, "float16": 2**-11}[dtype]
    assert found[0]["loss"] == pytest.approx(exact[0]["loss"], rel=eps)
    assert found[0]["grad_norm"] == pytest.approx(exact[0]["grad_norm"], rel=2 * eps)
    assert found[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=4 * eps)


def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="device 'tpu', expected cpu"):
        Trainer(tiny_config(tmp_path, device="tpu"))
    with pytest.raises(DeviceError, match="device cuda:99"):
        Trainer(tiny_config(tmp_path, device="cuda:99"))


def test_threads_are_those_of_the_settings(tmp_path, restore_threads):
    Trainer(tiny_config(tmp_path, threads=3))
    assert longnet.num_threads() == 3
    Trainer(tiny_config(tmp_path, threads=1))
    assert longnet.num_threads() == 1
    assert blas.num_threads() in (None, 1)


def test_the_same_seed_gives_the_same_bits(tmp_path):
    runs = [Trainer(tiny_config(tmp_path, out)).train() for out in ("a", "b")]
    first, second = (load(run.checkpoint) for run in runs)
    assert same_arrays(first, second)
    other = Trainer(tiny_config(tmp_path, "c", seed=1)).train()
    assert not same_arrays(load(other.checkpoint), first)


def test_evaluating_and_saving_change_no_weight(tmp_path):
    often = Trainer(tiny_config(tmp_path, "a", eval_every=1, save_every=1)).train()
    once = Trainer(tiny_config(tmp_path, "b", eval_every=99, save_every=99)).train()
    assert same_arrays(load(often.checkpoint), load(once.checkpoint))


def test_accumulation_is_one_larger_batch(tmp_path):
    """Without dropout the same sequences give the same gradient, however they are split."""
    runs = []
    for out, batch, accumulate in (("a", 4, 1), ("b", 1, 4)):
        config = tiny_config(tmp_path, out, batch_size=batch, accumulate=accumulate, steps=2)
        config = config.merge({"model": {"dropout": 0.0, "attention_dropout": 0.0}})
        Trainer(config).train()
        runs.append(read_metrics(tmp_path / out / "metrics.jsonl"))
    for whole, parts in zip(*runs, strict=True):
        assert parts["tokens"] == whole["tokens"]
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)


def test_clipping_bounds_the_update(tmp_path, monkeypatch):
    trainer = Trainer(tiny_config(tmp_path, clip=1e-3, accumulate=2, steps=1))
    factors = []
    step = trainer.optimizer.step
    monkeypatch.setattr(
        trainer.optimizer,
        "step",
        lambda rate, factor: (factors.append(factor.item()), step(rate, factor)),
    )
    trainer.train()
    record = read_metrics(tmp_path / "run/metrics.jsonl")[0]
    assert factors[0] * 2 * record["grad_norm"] == pytest.approx(1e-3)
    assert record["learning_rate"] == 1e-2  # one step of warm-up


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient norm"])
def test_divergence_stops_before_the_update(tmp_path, monkeypatch, value, where):
    config = tiny_config(tmp_path, eval_every=99)
    trainer = Trainer(config)
    module = trainer.model if where == "loss" else trainer.optimizer
    name = "loss" if where == "loss" else "clip_factor"
    real, calls = getattr(module, name), []

    def diverging(*arguments, **options):
        calls.append(1)
        result = real(*arguments, **options)
        if len(calls) == 4:
            ops.fill(result.data if where == "loss" else result[1], value)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(module, name, diverging)
        with pytest.raises(DivergenceError, match=f"step 4: found {where} {value}, .*-00000002$"):
            trainer.train()
    assert load_latest(tmp_path / "run").step == 2
    Trainer(config, resume=read_checkpoint(tmp_path / "run")).train()
    assert [r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_learning_rate_beyond_reason_diverges(tmp_path):
    with pytest.raises(DivergenceError, match=r"step \d: found .*; no checkpoint yet"):
        Trainer(tiny_config(tmp_path, learning_rate=1e30, save_every=99)).train()


def test_no_space_for_a_checkpoint_keeps_the_older_one(tmp_path, monkeypatch):
    real, calls = writer.save_file, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 2:  # model and optimizer of step 2
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(writer, "save_file", full)
    with pytest.raises(CheckpointError, match=r"step-00000004: cannot be saved: No space left"):
        Trainer(tiny_config(tmp_path)).train()
    assert load_latest(tmp_path / "run").step == 2
    assert [p.name for p in (tmp_path / "run").glob("*step*")] == ["step-00000002"]


def test_no_space_for_metrics_is_one_line(tmp_path, monkeypatch):
    class Full:
        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, line):
            raise OSError(errno.ENOSPC, "No space left on device")

    trainer = Trainer(tiny_config(tmp_path))
    real = metrics_module.MetricsFile.__init__

    def init(self, path, step):
        real(self, path, step)
        full = Full()
        full.file, self._file = self._file, full

    monkeypatch.setattr(metrics_module.MetricsFile, "__init__", init)
    with pytest.raises(LongNetError, match=r"metrics\.jsonl: cannot be written: No space left"):
        trainer.train()


def test_a_curve_that_cannot_be_drawn_ends_no_run(tmp_path):
    (tmp_path / "run/loss.png").mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"loss\.png: cannot be written"):
        outcome = Trainer(tiny_config(tmp_path)).train()
    assert load(outcome.checkpoint).step == 6


def test_a_folder_with_checkpoints_is_refused(tmp_path):
    config = tiny_config(tmp_path, steps=2)
    Trainer(config).train()
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"train\.out_dir: found the checkpoint .*--resume"):
        Trainer(config)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(LongNetError, match="run"):
        Trainer(tiny_config(tmp_path)).train()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": {"schedule": "linaer"}}, ConfigError, "schedule: found 'linaer'"),
        ({"train": {"sequence_length": 2000}}, DataError, "expected at least 2001"),
        ({"data": {"train": "/nowhere/at/all"}}, DataError, "/nowhere/at/all"),
        ({"data": {"format": "parquet"}}, DataError, "parquet"),
        ({"model": {"mixer": "dliated"}}, ConfigError, "dliated"),
        ({"train": {"device": "tpu"}}, LongNetError, "tpu"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        Trainer(tiny_config(tmp_path).merge(changes))
    assert "\n" not in str(caught.value)


def test_ids_of_an_unknown_tokenizer_give_no_bits_per_byte(tmp_path):
    ids = np.random.default_rng(0).integers(0, 999, 3000).astype("<u2")
    ids.tofile(tmp_path / "tokens.bin")
    config = tiny_config(tmp_path).merge(
        {"model": {"vocab_size": 1000}, "data": {"train": str(tmp_path / "tokens.bin")}}
    )
    trainer = Trainer(config)
    outcome = trainer.train()
    assert outcome.evaluation.bits_per_byte is None
    assert all("bits" not in key for r in read_metrics(tmp_path / "run/metrics.jsonl") for key in r)
    assert trainer.data.decode(np.array([1, 998])) == "1 998"


def test_threads_change_no_bit(tmp_path, restore_threads):
    runs = [Trainer(tiny_config(tmp_path, f"t{n}", threads=n)).train() for n in (1, 2, 3)]
    first, *others = (load(run.checkpoint) for run in runs)
    assert all(same_arrays(other, first) for other in others)


def test_the_config_is_stored_as_json(tmp_path):
    config = tiny_config(tmp_path, steps=1)
    outcome = Trainer(config).train()
    state = json.loads((outcome.checkpoint / "state.json").read_text())["state"]
    assert RunConfig.from_dict(state["config"]) == config
