"""What the ranks of a training run are told when they differ, or one of them fails."""

import errno
import math
import threading

import pytest
from ranks import run_threads
from trainer_cases import mesh_config, train_on

from longnet._core import ops
from longnet.checkpoint import load_latest, writer
from longnet.errors import CommunicatorError, ConfigError, DivergenceError, OutOfMemoryError
from longnet.train import Trainer, read_checkpoint
from longnet.train import memory as memory_module
from longnet.train import record as record_module
from longnet.train import trainer as trainer_module
from longnet.train.world import World, renumbered


@pytest.fixture(autouse=True, scope="module")
def no_pictures():
    """Loss curves that take no time; tests/test_trainer_output.py draws some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_module, "plot_loss", lambda records, path: path.touch())
        yield


def errors_of(ranks, config_of, resume=None):
    """What each of so many ranks raises; `config_of` gives it its own settings."""

    def run(comm):
        Trainer(config_of(comm.rank), comm=comm, resume=resume(comm.rank) if resume else None)

    return run_threads(ranks, run)


def test_ranks_that_differ_in_settings_are_told_so(tmp_path):
    config = mesh_config(tmp_path, "run", 2, 2)
    own = config.merge({"train": {"learning_rate": 0.5, "threads": 2}})
    errors = errors_of(4, lambda rank: own if rank == 1 else config)
    assert all(type(error) is ConfigError for error in errors)
    assert {str(error) for error in errors} == {
        "train.learning_rate: found 0.5 on rank 1, expected 0.01 as on ranks 0, 2, 3"
    }


def test_ranks_that_differ_in_data_are_told_so(tmp_path, monkeypatch):
    """The same path with another content, as on another host."""
    config = mesh_config(tmp_path, "run", 2, 1)
    other = tmp_path / "other.txt"
    other.write_bytes((tmp_path / "text.txt").read_bytes()[::-1])
    own = config.merge({"data": {"train": str(other)}})
    real, here = trainer_module.open_data, threading.local()
    monkeypatch.setattr(trainer_module, "open_data", lambda c: real(own if here.rank else c))

    def run(comm):
        here.rank = comm.rank
        Trainer(config, comm=comm)

    for error in run_threads(2, run):
        assert isinstance(error, ConfigError)
        assert str(error).startswith("data.train: found ")
        assert "on rank 1, expected" in str(error)


def test_ranks_that_differ_in_their_checkpoint_are_told_so(tmp_path):
    config = mesh_config(tmp_path, "run", 2, 1, steps=4, save_every=2)
    train_on(config)
    folders = [tmp_path / "run/step-00000002", tmp_path / "run/step-00000004"]
    config = config.merge({"train": {"out_dir": str(tmp_path / "next")}})
    errors = errors_of(2, lambda rank: config, lambda rank: read_checkpoint(folders[rank]))
    assert {str(error) for error in errors} == {"step: found 4 on rank 1, expected 2 as on rank 0"}


@pytest.mark.parametrize(("sequence", "data", "ranks"), [(2, 2, 3), (1, 1, 2), (2, 1, 1)])
def test_a_mesh_of_another_size_than_the_ranks(tmp_path, sequence, data, ranks):
    config = mesh_config(tmp_path, "run", sequence, data)
    for error in errors_of(ranks, lambda rank: config):
        assert isinstance(error, ConfigError)
        assert str(error).startswith(
            f"--sequence-parallel {sequence} times --data-parallel {data}: found {ranks} rank"
        )
        assert f"expected {sequence * data}: start as many with mpirun" in str(error)
    if ranks == 1:
        with pytest.raises(ConfigError, match="found 1 rank, expected 2"):
            Trainer(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3}, "train.batch_size: found 3, expected a multiple of train.data_par.* 2"),
        ({"sequence_length": 1}, "train.sequence_parallel: found 2, expected at most .* = 1"),
        ({"timeout": 0}, "train.timeout: found 0.0, expected a value above 0"),
        ({"data_parallel": 0}, "train.data_parallel: found 0, expected at least 1"),
    ],
)
def test_settings_that_no_mesh_can_have(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        mesh_config(tmp_path, "run", 2, 2, **options)


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_alike(tmp_path):
    config = mesh_config(tmp_path, "run", 2, 2)

    def run(comm):
        trainer = Trainer(config, comm=comm)
        real, calls = trainer.model.loss, []

        def loss(*arguments, **options):
            result = real(*arguments, **options)
            calls.append(1)
            if comm.rank == 3 and len(calls) == 4:  # after the evaluation of step 3: step 4
                ops.fill(result.data, math.nan)
            return result

        trainer.model.loss = loss
        trainer.train()

    errors = run_threads(4, run)
    assert all(type(error) is DivergenceError for error in errors), errors
    assert len({str(error) for error in errors}) == 1
    assert "expected a finite number; the last checkpoint is" in str(errors[0])
    assert load_latest(tmp_path / "run").step == 2


def test_a_rank_short_of_memory_is_named_at_once(tmp_path, monkeypatch):
    """Before it finds out what would fit, and while gradients are on their way."""
    config = mesh_config(tmp_path, "run", 2, 2)
    others_ended = threading.Barrier(4, timeout=30)

    def what_would_fit(config):
        others_ended.wait()
        return "7 would fit"

    monkeypatch.setattr(memory_module, "what_would_fit", what_would_fit)

    def run(comm):
        trainer = Trainer(config, comm=comm)
        if comm.rank == 1:

            def short(*arguments, **options):
                raise OutOfMemoryError("no room")

            trainer.optimizer.clip_factor = short
        try:
            trainer.train()
        finally:
            if comm.rank != 1:
                others_ended.wait()

    errors = run_threads(4, run)
    assert str(errors.pop(1)) == "step 1: no room; 7 would fit"
    for error in errors:
        assert isinstance(error, CommunicatorError)
        assert str(error).endswith("rank 1 aborted: OutOfMemoryError: no room")


def test_no_rank_goes_on_if_the_checkpoint_cannot_be_written(tmp_path, monkeypatch):
    real, calls = writer.save_file, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 2:  # model and optimizer of step 2
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(writer, "save_file", full)
    config = mesh_config(tmp_path, "run", 2, 1)
    steps = [None, None]

    def run(comm):
        trainer = Trainer(config, comm=comm)
        try:
            trainer.train()
        finally:
            steps[comm.rank] = trainer.step

    first, second = run_threads(2, run)
    assert "step-00000004: cannot be saved: No space left" in str(first)
    assert isinstance(second, CommunicatorError)
    assert str(second).startswith("rank 1 of 2, gather_objects: rank 0 aborted: CheckpointError: ")
    assert "No space left" in str(second)
    assert steps == [4, 4]
    assert load_latest(tmp_path / "run").step == 2


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            "rank 1 of 2, exchange: rank 0 died: its connection has ended",
            "rank 3 of 4, exchange: rank 2 died: its connection has ended",
        ),
        (
            "rank 0 of 2, barrier: rank 1 of 2, exchange: waited 3 s for ranks 0, 1",
            "rank 2 of 4, barrier: rank 3 of 4, exchange: waited 3 s for ranks 2, 3",
        ),
        (
            "rank 1 of 2, exchange: rank 0 aborted: ValueError: rank 1 of 2, as found",
            "rank 3 of 4, exchange: rank 0 aborted: ValueError: rank 1 of 2, as found",
        ),
    ],
)
def test_numbers_of_ranks_that_share_a_sequence(reason, expected):
    assert renumbered(reason, 2, 2, 4) == expected


def test_an_error_among_the_ranks_of_a_sequence_has_the_numbers_of_all(tmp_path):
    config = mesh_config(tmp_path, "run", 2, 2)

    def run(comm):
        world = World(config, comm)
        with world.told():
            if comm.rank == 3:
                world.sequence.barrier()

    *others, error = run_threads(4, run, timeout=0.5)
    assert others == [None] * 3
    assert str(error) == "rank 3 of 4, barrier: waited 0.5 s for rank 2"
