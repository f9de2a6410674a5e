"""The measurement of time against length runs, and saves what it prints."""

import json

import pytest

import longnet
from longnet.bench import lengths


def test_every_kind_has_its_lengths(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lengths, "SHORTEST", 32)
    monkeypatch.setitem(lengths.SECONDS, "cpu", 60.0)
    assert lengths.main(["--longest", "100", "--repeats", "1", "--save", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (tmp_path / "lengths_cpu.txt").read_text()
    assert (tmp_path / "lengths_cpu.png").stat().st_size > 1000
    header, *rows = map(json.loads, (tmp_path / "lengths_cpu.jsonl").open())
    assert header["device"] == "cpu"
    assert [(row["kind"], row["tokens"]) for row in rows] == [
        (kind, tokens) for kind in lengths.KINDS for tokens in (32, 64)
    ]
    for row in rows:
        assert row["us_per_token"] == pytest.approx(row["ms"] * 1e3 / row["tokens"])
    dense = longnet.DilatedAttention([64], [1]).pairs(64, lengths.HEADS)
    assert rows[1]["tflops"] == pytest.approx(14 * 64 * dense / rows[1]["ms"] / 1e9)


def test_a_kind_ends_where_it_takes_long(monkeypatch):
    monkeypatch.setattr(lengths, "SHORTEST", 32)
    monkeypatch.setitem(lengths.SECONDS, "cpu", 0.0)
    assert [row.tokens for row in lengths.measure("cpu", 64, 1)] == [32, 32, 32]


@pytest.mark.parametrize(("name", "found", "least"), [("longest", 2047, 2048), ("repeats", 0, 1)])
def test_nothing_to_measure(capsys, name, found, least):
    with pytest.raises(SystemExit):
        lengths.main([f"--{name}", f"{found}"])
    assert f"--{name}: found {found}, expected {least} or more" in capsys.readouterr().err
