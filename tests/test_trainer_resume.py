"""Resuming: the same bits as an unbroken run, and checkpoints that do not fit."""

import shutil

import pytest
from tiny_run import same_arrays, tiny_config

from longnet.checkpoint import load, load_latest, save
from longnet.errors import CheckpointError, ConfigError, DataError
from longnet.train import Trainer, read_checkpoint, read_metrics, saved_config

TIMES = ("seconds", "tokens_per_second", "tflops", "peak_memory_bytes")


def without_times(path):
    return [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(path)]


@pytest.mark.parametrize("options", [{}, {"accumulate": 3, "recompute": "block"}])
def test_a_resumed_run_gives_the_bits_of_an_unbroken_one(tmp_path, options):
    unbroken = tiny_config(tmp_path, "unbroken", save_every=1, keep=9, **options)
    expected = load(Trainer(unbroken).train().checkpoint)
    for step in (1, 3, 5, 6):
        folder = tmp_path / f"from-{step}"
        folder.mkdir()
        shutil.copytree(tmp_path / f"unbroken/step-{step:08}", folder / f"step-{step:08}")
        # What a run leaves that is killed after its last checkpoint.
        shutil.copy(tmp_path / "unbroken/metrics.jsonl", folder)
        checkpoint = read_checkpoint(folder)
        config = saved_config(checkpoint)
        assert config == unbroken.merge({"train": {"out_dir": str(folder)}})
        outcome = Trainer(config, resume=checkpoint).train()
        found = load(outcome.checkpoint)
        assert found.step == 6
        assert same_arrays(found, expected)
        assert found.state["data"] == expected.state["data"]
        assert found.state["random"] == expected.state["random"]
        assert without_times(folder / "metrics.jsonl") == without_times(
            tmp_path / "unbroken/metrics.jsonl"
        )


def test_seconds_go_on_counting(tmp_path):
    Trainer(tiny_config(tmp_path, steps=2)).train()
    config = tiny_config(tmp_path, steps=4)
    Trainer(config, resume=read_checkpoint(tmp_path / "run")).train()
    seconds = [r["seconds"] for r in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert len(seconds) == 4
    assert seconds == sorted(seconds)


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    config = tiny_config(tmp_path)
    finished = Trainer(config).train()
    trainer = Trainer(config, resume=read_checkpoint(tmp_path / "run"))
    outcome = trainer.train()
    assert outcome.checkpoint == finished.checkpoint
    assert outcome.evaluation is None
    assert trainer.evaluate() == finished.evaluation


def test_resuming_into_another_folder_leaves_the_first_alone(tmp_path):
    Trainer(tiny_config(tmp_path, save_every=1, keep=9)).train()
    before = sorted((tmp_path / "run").iterdir())
    checkpoint = read_checkpoint(tmp_path / "run/step-00000003")
    outcome = Trainer(tiny_config(tmp_path, "branch"), resume=checkpoint).train()
    assert sorted((tmp_path / "run").iterdir()) == before
    assert same_arrays(load(outcome.checkpoint), load_latest(tmp_path / "run"))
    steps = [r["step"] for r in read_metrics(tmp_path / "branch/metrics.jsonl")]
    assert steps == [4, 5, 6]


def test_an_older_checkpoint_does_not_go_on_among_newer_ones(tmp_path):
    config = tiny_config(tmp_path, save_every=1, keep=9)
    Trainer(config).train()
    checkpoint = read_checkpoint(tmp_path / "run/step-00000003")
    with pytest.raises(ConfigError, match=r"step-00000006, expected none after .*step-00000003"):
        Trainer(config, resume=checkpoint)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": {"num_layers": 3}}, ConfigError, "model.num_layers: found 3, expected 2"),
        ({"train": {"steps": 5}}, ConfigError, "train.steps: found 5, expected at least 6"),
        ({"train": {"sequence_length": 48}}, DataError, "sequence_length 24, expected 48"),
        ({"data": {"train": "stdlib", "validation": None}}, DataError, "fingerprint"),
    ],
)
def test_settings_that_do_not_fit_the_checkpoint(tmp_path, changes, error, message):
    config = tiny_config(tmp_path)
    Trainer(config).train()
    with pytest.raises(error, match=message):
        Trainer(config.merge(changes), resume=read_checkpoint(tmp_path / "run"))


def test_what_is_no_checkpoint_of_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="found no checkpoint"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "step-00000001")
    path = save(tmp_path, 1, {"model": {}}, {"anything": 1})
    with pytest.raises(CheckpointError, match="found no arrays of the optimizer"):
        read_checkpoint(path)
    path = save(tmp_path, 1, {"model": {}, "optimizer": {}}, {"anything": 1})
    with pytest.raises(CheckpointError, match="found no 'config' in its state"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("config", 3), ("data", []), ("random", 7), ("optimizer", None), ("tokens", "x")],
)
def test_a_state_of_other_types_is_named(tmp_path, key, value):
    Trainer(tiny_config(tmp_path, steps=2)).train()
    found = read_checkpoint(tmp_path / "run")
    save(tmp_path / "run", 2, found.arrays, {**found.state, key: value})
    with pytest.raises(CheckpointError, match=f"step-.*found {key} .* in its state"):
        read_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("group", ["model", "optimizer"])
def test_values_that_are_not_finite_are_named_with_their_checkpoint(tmp_path, group):
    config = tiny_config(tmp_path, steps=2)
    Trainer(config).train()
    found = read_checkpoint(tmp_path / "run")
    name = sorted(found.arrays[group])[3]
    found.arrays[group][name].flat[0] = float("nan")
    save(tmp_path / "run", 2, found.arrays, found.state)
    broken = read_checkpoint(tmp_path / "run")
    with pytest.raises(CheckpointError, match=rf"step-\d+(\.\d)?: .*{name}.*, expected finite"):
        Trainer(config, resume=broken)


def test_a_damaged_checkpoint_names_an_intact_one(tmp_path):
    Trainer(tiny_config(tmp_path)).train()
    weights = tmp_path / "run/step-00000006/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"SHA-256.*; .*step-00000004 is intact"):
        read_checkpoint(tmp_path / "run")
    assert read_checkpoint(tmp_path / "run/step-00000004").step == 4
