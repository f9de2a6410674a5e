"""The measurement of attention runs, counts what it says, and saves what it prints."""

import argparse
import json
import sys

import pytest

longnet = pytest.importorskip("longnet")

from longnet.bench import attention, attention_cpu, report  # noqa: E402
from longnet.bench.devices import CpuDevice  # noqa: E402


@pytest.fixture
def small(monkeypatch):
    """The whole measurement, in a second."""
    for name, value in {
        "LEVEL_ROWS": 16,
        "LEVEL_TOKENS": 1024,
        "PRODUCT_SIZE": 64,
        "PAPER": ((32, 64), (1, 2)),
        "SHORT": 64,
        "LONG": 256,
    }.items():
        monkeypatch.setattr(attention_cpu, name, value)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    attention.add_arguments(parser)
    return parser.parse_args(arguments)


def test_measure(small):
    pattern = longnet.DilatedAttention([32], [2])
    case = attention_cpu.Case("one", pattern, 96, 3, dim=16)
    row, _ = attention_cpu.measure(CpuDevice(), [case, case], repeats=3)
    assert row.levels == "32/2"
    assert row.pairs == 3 * 3 * 16 * 17 // 2
    for step in ("forward", "backward"):
        speed, us = getattr(row, step), getattr(row, f"{step}_us")
        flops = {"forward": 4, "backward": 10}[step] * 16 * row.pairs
        assert speed == pytest.approx(flops / (us * 96 * 1e3), rel=1e-6)
        assert getattr(row, f"{step}_ratio") > 0
        assert getattr(row, f"{step}_extra") >= 0


def test_run_saves_what_it_prints(small, tmp_path, capsys):
    assert attention.run(parse("--long", "--repeats", "2", "--save", str(tmp_path / "new"))) == 0
    text = (tmp_path / "new" / "attention_cpu.txt").read_text()
    assert capsys.readouterr().out == text
    header, *rows = map(json.loads, (tmp_path / "new" / "attention_cpu.jsonl").open())
    assert {"date", "command", "processor", "threads", "instruction_set"} <= set(header)
    assert [row["name"] for row in rows] == [
        *(f"{16 * r}/{r}" for r in attention_cpu.LEVEL_RATES),
        "paper",
        "paper, 2 heads, 64",
        "paper, 2 heads, 256",
    ]
    assert "r = 16 over r = 1: forward " in text
    assert "time a token of 256 over 64: forward " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "argument --repeats: 0, expected 1 or more"),
        (["--only", "paper,papers"], "argument --only: 'papers', expected some of paper, powers"),
        (["--only", "paper"], "argument --only: cpu, expected with --device cuda"),
        (["--device", "cuda", "--long"], "argument --long: cuda, whose group is --only lengths"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_bad_options(arguments, message, capsys):
    with pytest.raises(SystemExit):
        attention.run(parse(*arguments))
    assert message in capsys.readouterr().err


def test_the_gpu_needs_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("longnet.bench.gpu_attention")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit):
        attention.run(parse("--device", "cuda"))
    assert "argument --device: cuda measures beside PyTorch: " in capsys.readouterr().err


def test_a_recorded_command_names_no_folder_of_the_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench/train.py", "--only", "step", "--save", "/home/me/out"])
    assert report.command().endswith("python bench/train.py --only step --save out")
