"""Trainings on tasks: what is taught, when they end, what is kept; on models of a second."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest

from longnet import tasks
from longnet.bench.tasks import command, recipes, runs
from longnet.bench.tasks.recipes import RECIPES, Phase, run_config, select, turns
from longnet.bench.tasks.results import FILE, Results
from longnet.bench.tasks.stream import BlockMaker, Stream
from longnet.bench.tasks.turned import TurnedPathfinder
from longnet.errors import ConfigError, DataError
from longnet.tasks import IGNORE, TaskBatches
from longnet.tasks.draw import Draw
from longnet.train import record
from longnet.train.task_data import MixedBatches

TINY = replace(
    RECIPES["induction-256"],
    name="tiny", length=32, lengths=(32, 64), examples=3, steps=10, batch_size=4, eval_every=4,
    eval_examples=3, embed_dim=32, num_heads=2, ffn_dim=32,
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch, restore_threads):
    """A recipe of a second, on one thread, without its loss curve."""
    monkeypatch.setitem(recipes.RECIPES, "tiny", TINY)
    monkeypatch.setattr(record, "plot_loss", lambda *unused: None)


def bench(folder, *more):
    return command.main(["--device", "cpu", "--only", "tiny", "--results", str(folder), *more])


def records(folder):
    return [json.loads(line) for line in (folder / FILE).open()]


# Recipes


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes_are_whole(recipe, tmp_path):
    config = run_config(recipe, tmp_path, "cuda")
    assert config.train.dtype == "bfloat16"
    assert recipe.length in recipe.lengths
    assert sum(phase.share for phase in recipe.phases) == pytest.approx(1)
    assert recipe.turned == 0 or recipe.batch_size % recipe.turned == 0
    tasks.get(recipe.task).check_length(min(recipe.lengths))
    for phase in recipe.phases:
        assert len(turns(recipe, phase)) == (len(phase.dashes) if recipe.turned else 1)
    if recipe.name.endswith(("-2k", "-256")):
        assert max(recipe.lengths) == 16 * recipe.length


def test_only_names_recipes():
    assert [r.name for r in select("listops,induction-2k", "cuda")] == ["listops", "induction-2k"]
    assert {r.length for r in select(None, "cpu")} == {256}
    assert {"listops", "pathfinder32", "pathx256"} <= {r.name for r in select(None, "cuda")}
    with pytest.raises(ConfigError, match=r"--only: found 'copy', expected some of induction-2k, "):
        select("listops,copy", "cuda")


# Batches


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_has_the_batches_of_a_training(workers):
    task = tasks.get("associative_recall")
    plain = MixedBatches(task, 3, 64, 5, 16)
    maker = BlockMaker([MixedBatches(task, 3, 64, 5, 16)], 3)
    stream = Stream(maker, plain.state_dict(), 0, workers=workers)
    for number in range(1, 6):
        for ours, theirs in zip(next(stream), next(plain), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == np.int32
        assert stream.state_dict() == plain.state_dict()
        assert plain.state_dict()["position"] == 3 * number


def test_stream_begins_anywhere_and_takes_turns():
    def batches():
        return [TaskBatches(tasks.get(n), 2, 64, 5) for n in ("induction_heads", "listops")]

    wanted = [next(taken) for taken in batches() for _ in range(4)]
    stream = Stream(BlockMaker(batches(), 2), {}, 2)
    for number in (2, 3):
        expected = wanted[4 * (number % 2) + number]
        for ours, theirs in zip(next(stream), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_stream_ends_the_training_in_time():
    noted = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    try:
        maker = BlockMaker([TaskBatches(tasks.get("induction_heads"), 2, 16)], 2)
        early, late = Stream(maker, {}, 0), Stream(maker, {}, 0, until=0.0)
        next(early), next(late)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert noted == [signal.SIGTERM]
    assert (early.expired, late.expired) == (False, True)


# Pathfinder, turned and traced


def same(image, other):
    """Whether one is the other, turned or mirrored."""
    turned = [np.rot90(other, k) for k in range(4)]
    return any(np.array_equal(image, way) or np.array_equal(image.T, way) for way in turned)


def test_an_image_in_all_its_ways():
    task, plain = TurnedPathfinder("pathfinder32", None, 8), tasks.get("pathfinder32")
    example = plain.make(3, 5, 1024)
    turned = [task.make(3, 8 * 5 + use, 1024) for use in range(8)]
    assert len({t.tokens.tobytes() for t in turned}) == 8
    assert all(same(plain.image(t), plain.image(example)) for t in turned)
    for t in turned:
        np.testing.assert_array_equal(t.targets, example.targets)


@pytest.mark.parametrize("dashes", [4, 14])
def test_pixels_are_asked_for_as_the_whole_is(dashes):
    task = TurnedPathfinder("pathfinder32", dashes, 4)
    for index in range(8):
        scene = task._scene(Draw(task._key, 1, index // 4))
        example = task.make(1, index, 1024)
        label, asked = example.targets[-1], example.asked
        assert label == scene.label == example.answers[0]
        assert set(example.expected.tolist()) <= {0, 1}
        assert (example.tokens[asked[:-1]] >= 64).all()
        assert (example.targets[: asked[0]] == IGNORE).all()
        # The contour that is asked for has the pixels that it has alone, as far as they are asked.
        images = [scene.paint(task.picture, owner) for owner in scene.marked]
        lit = [(image >= 64).sum() for image in images]
        assert 0 < (example.targets[:-1] == 1).sum() <= max(lit)
        # What answers every question right knows the label: the other dot's pixels have it.
        bright = asked[:-1][example.tokens[asked[:-1]] == 255]
        assert label in example.targets[bright]


def test_fewer_dashes_are_another_task():
    easy, hard = TurnedPathfinder("pathfinder32", 6, 1), TurnedPathfinder("pathfinder32", 14, 1)
    assert (easy.name, hard.name) == ("pathfinder32_6", "pathfinder32")
    counts = [len(t._scene(Draw(1, 2, 3)).contours[0]) for t in (easy, hard)]
    assert counts == [6, 14]


# Whole runs


def test_a_run_is_kept_and_not_made_again(tiny, tmp_path, capsys, monkeypatch):
    assert bench(tmp_path, "--save") == 0
    (kept,) = records(tmp_path)
    assert (kept["steps"], kept["ended"]) == (10, "steps")
    assert [look["step"] for look in kept["curve"]] == [4, 8, 10]
    assert [cell["length"] for cell in kept["cells"]] == [32, 64]
    assert {"score", "chance", "shortcut", "shortcut_name"} <= set(kept["cells"][0])
    for name in ("tasks.txt", "tasks_length.png", "tasks_learning.png"):
        assert (tmp_path / name).stat().st_size
    printed = capsys.readouterr().out
    assert "tiny" in printed
    assert "shortcut of induction_heads: perfect over the last 64 tokens" in printed
    monkeypatch.setattr(command, "make", lambda *unused: pytest.fail("made again"))
    assert bench(tmp_path) == 0
    assert capsys.readouterr().out == printed
    assert len(records(tmp_path)) == 1


def test_options_limit_a_run(tiny, tmp_path):
    assert bench(tmp_path, "--steps", "3", "--examples", "2") == 0
    assert bench(tmp_path, "--minutes", "1e-6") == 0
    short, quick = records(tmp_path)
    assert (short["steps"], short["cells"][0]["examples"]) == (3, 2)
    assert quick["ended"] == "minutes"
    assert 2 <= quick["steps"] <= 4
    assert len(Results(tmp_path).records) == 1  # the table has the last of a name
    with pytest.raises(SystemExit):
        bench(tmp_path, "--steps", "0")


def test_what_is_solved_ends(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", replace(TINY, solved=0.0, steps=1000))
    assert bench(tmp_path) == 0
    (kept,) = records(tmp_path)
    assert (kept["ended"], kept["steps"]) == ("solved", 6)  # after 5, a quarter more


def test_phases_go_on_from_each_other(tiny, tmp_path, monkeypatch):
    firsts = []
    monkeypatch.setattr(
        runs, "Stream", lambda maker, state, first, **k: firsts.append(first) or Stream(
            maker, state, first, **k)
    )  # fmt: skip
    phases = Phase(0.3), Phase(0.5), Phase(0.2)
    trained = runs.train(replace(TINY, phases=phases), tmp_path / "run", "cpu", 0)
    assert firsts == [0, 3, 8]
    assert trained.trainer.step == 10
    assert trained.trainer.tokens == sum(4 * (32 >> i % 2) for i in range(10))


def test_a_signal_ends_all(tiny, tmp_path, monkeypatch, capsys):
    def interrupted(*unused, **also):
        signal.raise_signal(signal.SIGINT)
        return TaskBatches(tasks.get("induction_heads"), 4, 32).__next__()

    monkeypatch.setattr(Stream, "__next__", interrupted)
    assert bench(tmp_path) == 128 + signal.SIGINT
    assert not (tmp_path / FILE).exists()
    assert "tiny stopped by SIGINT" in capsys.readouterr().err


def test_results_that_are_none(tmp_path):
    (tmp_path / FILE).write_text('{"settings": {"name": "x"}, "cells": [{"score": 1}]}\n{}\n')
    with pytest.raises(DataError, match=r"tasks\.jsonl: line 2: expected a run's record"):
        Results(tmp_path)
