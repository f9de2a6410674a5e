"""Notebooks run with a device's settings: what they print and show is kept, and their failures."""

import json
from pathlib import Path

import pytest

from longnet.bench import cells, notebooks
from longnet.errors import DataError

TOY = """# ---
# jupyter: of no interest
# ---

# %% [markdown]
# # A toy

# %%
import matplotlib.pyplot as plt

DEVICE = "cpu"  # "cuda": larger
SIZE = {"cpu": 2, "cuda": 3}[DEVICE]
SIZE + 1  # not the last one of its cell
fig, ax = plt.subplots()
ax.plot([0, SIZE])
plt.show()

# %%
def scaled(x: int):
    return x


print("size", SIZE, scaled.__annotations__)
SIZE, DEVICE

# %%


class Picture:
    data = b"bytes of a picture"


Picture()
"""


@pytest.fixture
def folder(tmp_path):
    scripts = tmp_path / "notebooks"
    scripts.mkdir()
    (scripts / "toy.py").write_text(TOY)
    return scripts


def bench(folder, *more):
    return notebooks.main(["--device", "cpu", "--notebooks", str(folder), *map(str, more)])


def test_what_a_notebook_prints_and_shows(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells.run(folder / "toy.py", "cuda", tmp_path)
    assert capsys.readouterr().out == "size 3 {'x': <class 'int'>}\n(3, 'cuda')\n"
    assert (tmp_path / "toy_1.png").stat().st_size > 1000
    assert (tmp_path / "toy_2.png").read_bytes() == b"bytes of a picture"


def test_runs_are_kept_and_failures_shown(folder, tmp_path, capsys):
    results = tmp_path / "results"
    assert bench(folder, "--save", results) == 0
    [record] = map(json.loads, (results / "notebooks_cpu.jsonl").open())
    assert record["notebook"] == "toy"
    assert record["output"] == "size 2 {'x': <class 'int'>}\n(2, 'cpu')\n"
    text = (results / "notebooks_cpu.txt").read_text()
    assert f"toy  {record['seconds']:7.0f}\n\n== toy\n\n" in text
    assert text.endswith("size 2 {'x': <class 'int'>}\n(2, 'cpu')\n")

    (folder / "bad.py").write_text('# %%\nDEVICE = "cpu"\n\n# %%\nprint("here")\n\n1 / 0\n')
    capsys.readouterr()
    assert bench(folder, "--only", "bad,toy", "--save", results) == 1
    out = capsys.readouterr().out
    assert "== bad\n\nhere\n" in out
    assert 'bad.py", line 7, in <module>\n    1 / 0' in out
    assert "ZeroDivisionError: division by zero\nbad: exit code 1\n" in out
    bad, toy = out.splitlines()[-2:]
    assert (bad.split()[0], bad.split()[2], toy.split()[0]) == ("bad", "failed", "toy")
    lines = (results / "notebooks_cpu.jsonl").read_text().splitlines()
    assert [json.loads(line)["notebook"] for line in lines] == ["toy", "toy"]
    assert (results / "notebooks_cpu.txt").read_text().count("== toy") == 1


@pytest.mark.parametrize(("text", "found"), [("x = 1\n", 0), ('DEVICE = "cpu"\n' * 2, 2)])
def test_a_script_has_one_device(text, found):
    with pytest.raises(DataError, match=f'toy: found {found} lines DEVICE = "cpu", expected 1'):
        cells.on_device(text, "cuda", "toy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "toy,game"), "--only: found 'game', expected some of toy"),
        (("--notebooks", "nowhere"), "--notebooks: found no script in nowhere"),
    ],
)
def test_nothing_to_run(folder, capsys, arguments, message):
    with pytest.raises(SystemExit):
        bench(folder, *arguments)
    assert f"notebooks: {message}" in capsys.readouterr().err


def test_every_notebook_has_a_device():
    for path in notebooks.select(Path(__file__).parents[1] / "notebooks", None):
        assert 'DEVICE = "cuda"' in cells.on_device(path.read_text(), "cuda", path)
