"""`longnet train`: folders, settings, resuming, stopping, and what it prints at the end."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import MODEL, TRAIN, same_arrays, tiny_config

import longnet
from longnet.checkpoint import load, load_latest, writer
from longnet.cli import main
from longnet.config import RunConfig
from longnet.train import Trainer, read_metrics


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with the settings of a tiny run in run.toml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("longnet.cli.summary._NEW_TOKENS", 8)
    tiny_config(tmp_path)  # writes the text
    config = RunConfig.from_dict(
        {"model": MODEL, "data": {"train": "text.txt"}, "train": {**TRAIN, "out_dir": "run"}}
    )
    config.save("run.toml")
    return tmp_path


def train(capsys, *arguments):
    code = main(["train", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_what_it_prints(folder, capsys):
    code, out, err = train(capsys, "--config", "run.toml")
    assert code == 0
    for text in (
        "dilated attention 8/1 16/2",
        "steps 0 to 6 of 48 tokens, length 24",
        "bits per byte of 96 bytes",
        "unigram ",
        "bigram ",
        "longnet ",
        "loss curve  run/loss.png",
        "checkpoint  run/step-00000006",
        "forward",
    ):
        assert text in out
    assert "step 6: validation loss" in err
    assert (folder / "run/loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_in_use_is_refused_and_resumed(folder, capsys):
    assert train(capsys, "--config", "run.toml", "--set", "train.steps=4")[0] == 0
    code, out, err = train(capsys, "--config", "run.toml")
    assert (code, out) == (2, "")
    assert err.startswith("longnet: error: train.out_dir: found the checkpoint run/step-00000004")
    assert "--resume run" in err
    assert err.count("\n") == 1
    code, out, _ = train(capsys, "--resume", "run", "--set", "train.steps=6")
    assert code == 0
    assert "steps 4 to 6" in out
    assert [r["step"] for r in read_metrics("run/metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    code, out, _ = train(capsys, "--resume", "run/step-00000006")
    assert code == 0
    assert "steps 6 to 6" in out
    assert "bits per byte of" in out


def test_numbered_folders(folder, capsys):
    arguments = ["--config", "run.toml", "--out-dir", "runs/x-NNN"]
    for _ in range(2):
        assert train(capsys, *arguments, "--set", "train.steps=2")[0] == 0
    (folder / "runs/x-0120").mkdir()
    assert train(capsys, *arguments, "--set", "train.steps=2")[0] == 0
    assert sorted(p.name for p in (folder / "runs").iterdir()) == [
        "x-001",
        "x-002",
        "x-0120",
        "x-121",
    ]
    assert train(capsys, *arguments, "--set", "train.steps=3", "--resume")[0] == 0
    assert load_latest("runs/x-121").step == 3
    assert load_latest("runs/x-001").step == 2


def test_a_run_that_does_not_start_leaves_no_folder(folder, capsys):
    bad = ["--set", "data.train=nothing.txt"]
    code, _, err = train(capsys, "--config", "run.toml", "--out-dir", "runs/x-NNN", *bad)
    assert code == 2
    assert "nothing.txt" in err
    assert list((folder / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "train.stpes=3"], 2, "train.stpes: unknown key, did you mean steps?"),
        (["--set", "train.steps=many"], 2, "train.steps: found 'many', expected an int"),
        (["--preset", ""], 2, "preset '': unknown key"),
        (["--config", ""], 2, "file name"),
        (["--preset", "demmo"], 2, "unknown key, did you mean demo?"),
        (["--config", "nowhere.toml"], 2, "nowhere.toml: cannot be read"),
        (["--resume", "nowhere"], 1, "nowhere: found no checkpoint"),
        (["--resume"], 1, "runs/demo-NNN: found no checkpoint"),
        (["--set", "data.train=stdlib", "--set", "model.mixer=dence"], 2, "dence"),
        (["--set", "train.device=tpu"], 1, "tpu"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, arguments, code, message):
    found, out, err = train(capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("longnet: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_no_space_is_one_line_and_keeps_the_older_checkpoint(folder, capsys, monkeypatch):
    real, calls = writer.save_file, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(writer, "save_file", full)
    code, _, err = train(capsys, "--config", "run.toml")
    assert code == 1
    lines = [line for line in err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert "step-00000004: cannot be saved: No space left on device" in lines[0]
    assert load_latest("run").step == 2


def test_a_curve_that_cannot_be_drawn_is_a_warning(folder, capsys):
    (folder / "run/loss.png").mkdir(parents=True)
    code, out, err = train(capsys, "--config", "run.toml")
    assert code == 0
    warnings = [line for line in err.splitlines() if "loss.png" in line]
    assert set(warnings) == {"longnet: warning: run/loss.png: cannot be written: Is a directory"}
    assert "loss curve  not drawn: run/loss.png: cannot be written" in out
    assert "checkpoint  run/step-" in out


def test_divergence_is_one_line(folder, capsys):
    code, _, err = train(capsys, "--config", "run.toml", "--set", "train.learning_rate=1e30")
    assert code == 1
    assert err.splitlines()[-1].startswith("longnet: error: step ")
    assert "Warning" not in err


def test_an_output_that_knows_few_letters(folder, monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    assert main(["train", "--config", "run.toml"]) == 0
    assert b"bits per byte" in buffer.getvalue()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_gives_its_code(folder, number, code):
    """The whole command in a process of its own, stopped, resumed, and beside an unbroken run."""
    options = ("train.steps=2000", "train.schedule=constant", "train.save_every=2000")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "longnet", "train", "--config", "run.toml"]
        + [word for option in options for word in ("--set", option)],
        env={**os.environ, "PYTHONPATH": str(Path(longnet.__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not os.path.exists("run/metrics.jsonl") or not read_metrics("run/metrics.jsonl"):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    step = load_latest("run").step
    assert 0 < step < 2000
    assert f"longnet: stopped by {number.name} after step {step} of 2000" in err
    assert "longnet train --resume run" in err

    steps = step + 3
    assert main(["train", "--resume", "run", "--set", f"train.steps={steps}"]) == 0
    config = tiny_config(folder, "unbroken", steps=steps, schedule="constant")
    unbroken = Trainer(config).train()
    assert same_arrays(load_latest("run"), load(unbroken.checkpoint))
    assert [r["step"] for r in read_metrics("run/metrics.jsonl")] == list(range(1, steps + 1))
