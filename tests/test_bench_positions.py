"""The measurement of positions beyond the length of training, very small."""

import json
import math

import numpy as np
import pytest

from longnet.bench import positions
from longnet.model import LongNet


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(positions, "TRAINED", 16)
    monkeypatch.setattr(positions, "TESTED", 128)
    monkeypatch.setattr(positions, "PLACES", [(8, 16), (64, 128)])


def test_a_row_for_every_way_to_extend_rope(tmp_path, capsys):
    options = ["--positions", "alibi", "rope", "--steps", "2", "--windows", "2"]
    assert positions.main([*options, "--save", str(tmp_path)]) == 0
    text = (tmp_path / "positions_cpu.txt").read_text()
    assert text == capsys.readouterr().out
    lines = (tmp_path / "positions_cpu.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[1:]]
    names = ["alibi, 16 at a time", "alibi", "rope, 16 at a time", "rope"]
    names += [f"rope, {scaling}" for scaling in positions.SCALINGS]
    assert [row["model"] for row in rows] == names
    for row in rows:
        assert f"{row['bits'][1]:.3f}" in text
        assert 4 < row["bits"][0] < 12


def test_bits_are_those_of_the_loss():
    """The mean over all positions is the model's loss."""
    model = LongNet(positions.MODEL).eval()
    windows = positions.validation_windows(positions.stdlib_source("validation"), 128, 3)
    loss = model.loss(*windows).item() / math.log(2)
    positions.PLACES[:] = [(0, 128), (0, 64), (64, 128)]
    whole, *halves = positions.bits(model, 3)
    assert whole == pytest.approx(loss, rel=1e-5)
    assert np.mean(halves) == pytest.approx(whole)
    pieces = [x.reshape(-1, 16) for x in windows]
    loss = model.loss(*pieces).item() / math.log(2)
    assert positions.bits(model, 3, 16)[0] == pytest.approx(loss, rel=1e-5)
