"""Training on a mesh of ranks: what one rank computes, whatever the mesh; one record for all."""

import json
import signal
import threading

import numpy as np
import pytest
from ranks import mpirun, needs_mpi, returned, run_threads
from tiny_run import same_arrays
from trainer_cases import curve, mesh_config, train_on

from longnet.checkpoint import load, load_latest
from longnet.cli import main
from longnet.parallel.batch import part_of_batch
from longnet.parallel.mesh import Mesh
from longnet.train import Trainer, read_checkpoint, read_metrics
from longnet.train import record as record_module
from longnet.train import trainer as trainer_module
from longnet.train.state import snapshot

MESHES = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (3, 1)]


@pytest.fixture(autouse=True, scope="module")
def no_pictures():
    """Loss curves that take no time; tests/test_trainer_output.py draws some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_module, "plot_loss", lambda records, path: path.touch())
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """50 steps of one rank without a communicator."""
    folder = tmp_path_factory.mktemp("alone")
    Trainer(mesh_config(folder, "run", 1, 1, steps=50, save_every=50, eval_every=25)).train()
    return folder / "run"


@pytest.mark.parametrize(("sequence", "data"), MESHES)
def test_the_loss_curve_is_that_of_one_rank(tmp_path, alone, sequence, data):
    options = {"steps": 50, "save_every": 50, "eval_every": 25}
    outcomes = train_on(mesh_config(tmp_path, "run", sequence, data, **options))
    for key in ("loss", "grad_norm", "validation_loss"):
        np.testing.assert_allclose(curve(tmp_path / "run", key), curve(alone, key), atol=1e-4)
    assert curve(tmp_path / "run", "tokens") == curve(alone, "tokens")
    assert curve(tmp_path / "run")[-1] < curve(tmp_path / "run")[0] - 1
    assert len(set(outcomes)) == 1  # evaluation and checkpoint
    if sequence * data == 1:
        assert same_arrays(load(outcomes[0].checkpoint), load_latest(alone))


@pytest.mark.parametrize("recompute", ["none", "block"])
def test_accumulation_and_clipping_are_those_of_all_ranks(tmp_path, recompute):
    options = {"accumulate": 2, "clip": 0.5, "steps": 6, "recompute": recompute}
    options |= {"save_every": 6, "eval_every": 6}
    for out, mesh in (("one", (1, 1)), ("many", (2, 2))):
        train_on(mesh_config(tmp_path, out, *mesh, **options))
    assert min(curve(tmp_path / "one", "grad_norm")) > 0.5
    for key in ("loss", "grad_norm"):
        found, expected = (curve(tmp_path / out, key) for out in ("many", "one"))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert curve(tmp_path / "many", "tokens")[-1] == 6 * 2 * 4 * 24
    records = read_metrics(tmp_path / "many/metrics.jsonl")
    assert {record["ranks"] for record in records} == {4}
    for record in records:
        per_rank = record["tokens_per_second_per_rank"]
        assert 4 * per_rank == pytest.approx(record["tokens_per_second"], rel=1e-2)


@pytest.mark.parametrize("dropout", [True, False])
def test_a_checkpoint_goes_on_on_any_mesh(tmp_path, dropout):
    """On the same one with the same bits."""
    options = {"dropout": dropout, "accumulate": 2, "save_every": 3, "keep": 9}
    (expected, *_) = train_on(mesh_config(tmp_path, "run", 2, 2, **options))
    saved = read_checkpoint(tmp_path / "run/step-00000003")
    for mesh in ((2, 2), (1, 1), (4, 1)):
        out = f"from {mesh}"
        config = mesh_config(tmp_path, out, *mesh, **options)

        def resumed(comm, config=config):
            trainer = Trainer(config, resume=saved, comm=comm)
            arrays, state = snapshot(trainer)
            if comm.rank == 0:
                copies = {g: {n: a.copy() for n, a in x.items()} for g, x in arrays.items()}
                return copies, state, trainer.train()
            return trainer.train()

        ranks = mesh[0] * mesh[1]
        arrays, state, outcome = returned(run_threads(ranks, resumed))[0]
        assert arrays.keys() == saved.arrays.keys()
        for group, named in saved.arrays.items():
            assert all(arrays[group][name].tobytes() == x.tobytes() for name, x in named.items())
        for key in ("data", "random", "tokens", "optimizer"):
            assert state[key] == saved.state[key]
        found = load(outcome.checkpoint)
        assert found.state["data"] == load(expected.checkpoint).state["data"]
        if mesh == (2, 2):
            assert same_arrays(found, load(expected.checkpoint))
            assert curve(tmp_path / out) == curve(tmp_path / "run")[3:]
        elif not dropout:
            np.testing.assert_allclose(
                curve(tmp_path / out), curve(tmp_path / "run")[3:], atol=1e-4
            )


def test_more_ranks_than_windows(tmp_path):
    """A data rank without a window takes part in the result."""
    config = mesh_config(tmp_path, "run", 1, 3, batch_size=3, eval_sequences=2)
    expected = Trainer(config.merge({"train": {"data_parallel": 1}})).evaluate()
    found = returned(run_threads(3, lambda comm: Trainer(config, comm=comm).evaluate()))
    assert len(set(found)) == 1
    assert found[0].loss == pytest.approx(expected.loss, abs=1e-5)
    assert found[0].bits_per_byte == pytest.approx(expected.bits_per_byte, abs=1e-5)


def test_the_parts_of_a_batch_are_the_batch():
    batch = np.arange(5 * 7).reshape(5, 7)

    def part(comm):
        mesh = Mesh(comm, 3, 2)
        return batch[part_of_batch(mesh, batch.shape)]

    parts = returned(run_threads(6, part))
    np.testing.assert_array_equal(np.block([parts[:3], parts[3:]]), batch)
    assert [p.shape for p in parts] == [(3, 3), (3, 2), (3, 2), (2, 3), (2, 2), (2, 2)]


def test_a_signal_on_one_rank_stops_all_at_the_same_step(tmp_path, monkeypatch):
    here = threading.local()

    class Stop(trainer_module.StopSignals):
        @property
        def received(self):
            trainer = here.trainer
            return signal.SIGTERM if trainer.world.rank == 2 and trainer.step >= 3 else None

    monkeypatch.setattr(trainer_module, "StopSignals", Stop)
    config = mesh_config(tmp_path, "run", 2, 2)

    def run(comm):
        here.trainer = Trainer(config, comm=comm)
        return here.trainer.train(), here.trainer.step

    for outcome, step in returned(run_threads(4, run)):
        assert step == 3
        assert outcome.stopped_by == signal.SIGTERM
        assert outcome.checkpoint == tmp_path / "run/step-00000003"
    assert curve(tmp_path / "run", "step") == [1, 2, 3]


def test_only_one_rank_writes_and_speaks(tmp_path, capsys):
    train_on(mesh_config(tmp_path, "run", 2, 2))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "loss.png",
        "metrics.jsonl",
        "step-00000002",
        "step-00000004",
        "step-00000006",
    ]
    assert curve(tmp_path / "run", "step") == [1, 2, 3, 4, 5, 6]
    captured = capsys.readouterr()
    assert captured.out == ""
    notes = [line for line in captured.err.splitlines() if "validation" in line]
    assert [note.split(":")[0] for note in notes] == ["step 3", "step 6"]


@needs_mpi
def test_the_command_on_four_processes(tmp_path, capsys):
    config = mesh_config(tmp_path, "runs/x-NNN", 1, 1, steps=4, threads=None)
    config.save(tmp_path / "run.toml")
    command = ["train", "--config", str(tmp_path / "run.toml"), "--sequence-parallel", "2"]
    done = mpirun(4, "-m", "longnet", *command, "--data-parallel", "2")
    assert done.returncode == 0, done.stderr
    for text in (
        "model  ",
        "mesh   4 ranks on cpu: sequence parallel 2, data parallel 2",
        "bigram",
    ):
        assert done.stdout.count(text) == 1
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name == "x-001"
    state = json.loads((out / "step-00000004/state.json").read_text())["state"]
    assert state["config"]["train"]["sequence_parallel"] == 2
    Trainer(mesh_config(tmp_path, "alone", 1, 1, steps=4)).train()
    np.testing.assert_allclose(curve(out), curve(tmp_path / "alone"), atol=1e-4)

    resume = ["train", "--resume", str(out), "--set", "train.steps=6"]
    assert main(resume) == 2
    assert "--sequence-parallel 2 times --data-parallel 2: found 1 rank" in capsys.readouterr().err
    assert main([*resume, "--sequence-parallel", "1", "--data-parallel", "1"]) == 0
    assert curve(out, "step") == [1, 2, 3, 4, 5, 6]
