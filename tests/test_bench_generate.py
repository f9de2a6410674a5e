"""The generation benchmark, on a model of a second."""

import json

from longnet.bench import generate as bench
from longnet.config import Config


def test_what_it_measures_and_saves(tmp_path, monkeypatch, capsys):
    small = {"num_layers": 1, "embed_dim": 32, "num_heads": 2}
    levels = {"segment_lengths": (8, 32), "dilation_rates": (1, 3), "position": "rope"}
    monkeypatch.setattr(bench, "MODELS", {"cpu": Config(**small, **levels)})
    monkeypatch.setattr(bench, "CHECK", Config(**small, **levels))
    monkeypatch.setattr(bench, "CONTEXTS", (64, 128, 4096))
    monkeypatch.setattr(bench, "ROUNDS", 2)
    arguments = ["--longest", "128", "--check", "50", "--save", str(tmp_path)]
    assert bench.main(arguments) == 0
    text = (tmp_path / "generate_cpu.txt").read_text()
    assert text == capsys.readouterr().out
    assert "50 of 50 tokens equal" in text
    header, *rows = map(json.loads, (tmp_path / "generate_cpu.jsonl").read_text().splitlines())
    assert header["model"] == "1 layers of 32, 2 heads, 2 key heads, 8/1 32/3, float32"
    assert [row["context"] for row in rows] == [64, 128]
    for row in rows:
        assert row["rows_per_head"] == 8 + 11
        assert row["cache_mb"] == 2 * 2 * 19 * 16 * 4 / 1e6
        assert row["dense_mb"] == 2 * 2 * row["context"] * 16 * 4 / 1e6
        assert row["ms"] > 0
        assert row["cpu_ms"] > 0
