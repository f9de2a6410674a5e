"""The measurement of attention runs, counts what it says, and saves what it prints."""

import argparse
import json

import pytest

longnet = pytest.importorskip("longnet")

from longnet.bench import attention as bench  # noqa: E402
from longnet.bench.devices import CpuDevice  # noqa: E402


@pytest.fixture
def small(monkeypatch):
    """The whole measurement, in a second."""
    for name, value in {
        "LEVEL_ROWS": 16,
        "PRODUCT_SIZE": 64,
        "PAPER": ((32, 64), (1, 2)),
        "SHORT": 64,
        "LONG": 256,
    }.items():
        monkeypatch.setattr(bench, name, value)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(arguments)


def test_measure(small):
    attention = longnet.DilatedAttention([32], [2])
    row = bench.measure(CpuDevice(), "one", attention, 96, 3, repeats=3, dim=16)
    assert row.levels == "32/2"
    assert row.pairs == 3 * 3 * 16 * 17 // 2
    for step in ("forward", "backward"):
        speed, us = getattr(row, step), getattr(row, f"{step}_us")
        flops = {"forward": 4, "backward": 10}[step] * 16 * row.pairs
        assert speed == pytest.approx(flops / (us * 96 * 1e3), rel=1e-6)
        assert getattr(row, f"{step}_ratio") > 0
        assert getattr(row, f"{step}_extra") >= 0


def test_run_saves_what_it_prints(small, tmp_path, capsys):
    assert bench.run(parse("--long", "--repeats", "2", "--save", str(tmp_path / "new"))) == 0
    text = (tmp_path / "new" / "attention_cpu.txt").read_text()
    assert capsys.readouterr().out == text
    header, *rows = map(json.loads, (tmp_path / "new" / "attention_cpu.jsonl").open())
    assert {"date", "command", "processor", "threads", "instruction_set"} <= set(header)
    assert [row["name"] for row in rows] == [
        *(f"{16 * r}/{r}" for r in bench.LEVEL_RATES),
        "paper",
        "paper, 2 heads, 64",
        "paper, 2 heads, 256",
    ]
    assert "r = 16 over r = 1: forward " in text
    assert "time a token of 256 over 64: forward " in text


def test_bad_repeats(capsys):
    with pytest.raises(SystemExit):
        parse("--repeats", "0")
    assert "0, expected 1 or more" in capsys.readouterr().err
