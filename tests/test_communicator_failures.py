"""What ranks are told when one of them is wrong, late, gone or dead; nobody waits for ever."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ranks import mpirun, needs_mpi, run_threads

import longnet
from longnet import CommunicatorError

FLOATS = np.zeros(3, np.float32)


def collective(c, wrong: str) -> None:
    """What all ranks but the first call, or what the first does instead."""
    match wrong if c.rank == 0 else "":
        case "":
            c.all_reduce(np.full((2, 3), 5, np.float32))
        case "shape":
            c.all_reduce(np.full((3, 2), 5, np.float32))
        case "dtype":
            c.all_reduce(np.full((2, 3), 5, np.int32))
        case "op":
            c.all_reduce(np.full((2, 3), 5, np.float32), "max")
        case "method":
            c.all_gather(np.empty((c.size, 2, 3), np.float32), np.zeros((2, 3), np.float32))
        case "barrier":
            c.barrier()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("shape", "all_reduce sum float32 (3, 2)"),
        ("dtype", "all_reduce sum int32 (2, 3)"),
        ("op", "all_reduce max float32 (2, 3)"),
        ("method", "all_gather float32 (2, 3)"),
        ("barrier", "barrier"),
    ],
)
def test_ranks_that_disagree_are_told_what_each_does(wrong, named):
    for rank, error in enumerate(run_threads(4, lambda c: collective(c, wrong))):
        assert isinstance(error, CommunicatorError)
        assert f"rank {rank} of 4, " in str(error)
        assert named in str(error)
        assert "all_reduce sum float32 (2, 3)" in str(error)


def test_nothing_is_written_where_shapes_disagree():
    def call(c):
        x = np.full(4 if c.rank else 3, 7, np.int64)
        with pytest.raises(CommunicatorError, match="message int64"):
            c.exchange([(1 - c.rank, np.zeros_like(x))], [(1 - c.rank, x)])
        return set(x.tolist())

    assert run_threads(2, call) == [{7}, {7}]


def test_a_late_rank_is_named_with_the_method():
    def call(c):
        if c.rank != 2:
            c.all_gather(np.empty((4, 3), np.float32), FLOATS)

    start = time.monotonic()
    found = run_threads(4, call, timeout=1)
    assert time.monotonic() - start < 5
    assert found.pop(2) is None
    assert all(isinstance(error, CommunicatorError) for error in found)
    for rank, error in zip((0, 1, 3), found, strict=True):
        assert str(error).startswith(f"rank {rank} of 4, all_gather: ")
        assert str(error).endswith("all_gather: waited 1 s for rank 2")


def test_a_failure_stays():
    """After a deadline every later call fails at once, on the late rank too."""

    def call(c):
        if c.rank == 1:
            time.sleep(1.2)
        with pytest.raises(CommunicatorError, match="waited 1 s for rank 1"):
            c.recv(FLOATS.copy(), 1 - c.rank)
        start = time.monotonic()
        with pytest.raises(CommunicatorError, match="waited 1 s for rank 1"):
            c.gather_objects(1)
        return time.monotonic() - start < 0.5

    assert run_threads(2, call, timeout=1) == [True, True]


def test_abort_wakes_all_ranks():
    def call(c):
        if c.rank == 1:
            time.sleep(0.1)
            c.abort("the disk is full")
        with pytest.raises(CommunicatorError, match=r"barrier: rank 1 aborted: the disk is full$"):
            c.barrier()

    start = time.monotonic()
    assert run_threads(8, call) == [None] * 8
    assert time.monotonic() - start < 10


def test_an_exception_in_a_with_statement_aborts():
    def call(c):
        with c:
            if c.rank == 2:
                raise ZeroDivisionError("by hand")
            c.all_reduce(FLOATS.copy())

    found = run_threads(3, call)
    assert isinstance(found[2], ZeroDivisionError)
    for error in found[:2]:
        assert str(error).endswith("all_reduce: rank 2 aborted: ZeroDivisionError: by hand")


@pytest.mark.parametrize("where", ["whole", "part"])
def test_abort_in_the_whole_or_a_part_reaches_those_who_wait_in_the_other(where):
    def call(c):
        part = c.split(c.rank // 2)  # ranks 0 and 3 do not come to the barriers
        if c.rank == 0:
            (c if where == "whole" else part).abort("enough")
        elif c.rank < 3:
            (part if where == "whole" else c).barrier()

    found = run_threads(4, call)
    for rank in (1, 2):
        assert isinstance(found[rank], CommunicatorError)
        assert "rank 0 aborted: enough" in str(found[rank])


def test_a_work_that_cannot_complete():
    def call(c):
        if c.rank == 0:
            work = c.recv(FLOATS.copy(), 1, blocking=False)
            with pytest.raises(CommunicatorError, match=r"recv: waited 0\.2 s for rank 1"):
                work.wait()

    assert run_threads(2, call, timeout=0.2) == [None, None]


def test_a_rank_that_has_closed_is_named():
    def call(c):
        c.barrier()
        if c.rank == 1:
            c.close()
            c.close()
        c.all_reduce(FLOATS.copy())

    found = run_threads(3, call)
    assert str(found[0]).endswith("all_reduce: rank 1 has closed its communicator")
    assert str(found[1]) == "rank 1 of 3, all_reduce: the communicator is closed"


def run_faults(folder: Path, method: str, victim: int, how: str, moment: int, timeout: float):
    """The times and the messages of the ranks that live on."""
    script = str(Path(__file__).with_name("communicator_fault.py"))
    arguments = [str(folder), method, str(victim), how, str(moment), str(timeout)]
    done = mpirun(4, script, *arguments, timeout=60)
    assert done.returncode != 0
    told = {}
    for rank in set(range(4)) - {victim}:
        path = folder / f"{rank}.txt"
        assert path.exists(), f"rank {rank} was told nothing: {done.stderr}"
        seconds, told[rank] = path.read_text().split(" ", 1)
        assert float(seconds) < timeout + 5
        assert told[rank].startswith(f"rank {rank} of 4, {method}: ")
    return told


@needs_mpi
@pytest.mark.parametrize(
    ("method", "victim", "how"),
    [
        ("all_gather", 3, "kill"),
        ("all_reduce", 0, "kill"),  # the rank through which the others hear of it
        ("exchange", 1, "kill later"),
        ("gather_objects", 2, "kill later"),
    ],
)
def test_a_killed_rank_is_named_by_all_others(tmp_path, rng, method, victim, how):
    told = run_faults(tmp_path, method, victim, how, int(rng.integers(40)), timeout=20)
    assert {message.partition(": ")[2] for message in told.values()} == {
        f"rank {victim} died: its connection has ended"
    }


@needs_mpi
def test_a_rank_that_hangs_is_named_by_all_others(tmp_path):
    told = run_faults(tmp_path, "all_gather", 2, "sleep", 5, timeout=1)
    assert all(message.endswith("waited 1 s for rank 2") for message in told.values())


@needs_mpi
@pytest.mark.parametrize(
    ("how", "message"),
    [("raise", "ended: ValueError: a bad batch"), ("close", "has closed its communicator")],
)
def test_why_a_rank_ended_is_told_to_the_others(tmp_path, how, message):
    told = run_faults(tmp_path, "barrier", 1, how, 5, timeout=20)
    assert all(text.endswith(f"rank 1 {message}") for text in told.values())


def test_missing_mpi4py_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(CommunicatorError, match=r"MPI is missing .*'longnet-native\[parallel\]'"):
        longnet.Communicator.from_environment("cpu")


@needs_mpi
def test_another_launcher_than_mpis_is_named(python):
    """Ranks that MPI does not know of: each finds itself alone."""
    call = "import longnet; longnet.Communicator.from_environment('cpu')"
    done = python("-c", call, PMI_RANK="0", PMI_SIZE="4")
    assert done.returncode == 1
    assert "rank 0: found 1 rank(s) in MPI, expected the launcher's 4" in done.stderr
