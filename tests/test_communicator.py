"""longnet.Communicator: the same cases on threads and on processes of MPI."""

import json
from pathlib import Path

import pytest
from communicator_cases import CASES
from ranks import mpirun, needs_mpi, run_threads

import longnet
from longnet.communicator.threads import ThreadCommunicator

SIZE = 4


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("case", CASES)
def test_threads(case, size):
    assert run_threads(size, CASES[case]) == [None] * size


@pytest.fixture(scope="module")
def mpi_results(tmp_path_factory):
    """What became of each case on each of the ranks that mpirun has started."""
    folder = tmp_path_factory.mktemp("ranks")
    done = mpirun(SIZE, str(Path(__file__).with_name("communicator_rank.py")), str(folder))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(SIZE)]


@needs_mpi
@pytest.mark.parametrize("case", CASES)
def test_mpi(mpi_results, case):
    for rank, results in enumerate(mpi_results):
        assert results[case] == "", f"rank {rank}"


def test_there_is_a_case_for_every_method():
    methods = {"all_gather", "reduce_scatter", "all_reduce", "broadcast", "exchange", "barrier"}
    assert methods | {"send_and_recv", "split", "gather_objects", "agree"} <= set(CASES)


def test_threads_of_one_size():
    with pytest.raises(longnet.ConfigError, match="size: found 0, expected at least 1"):
        longnet.Communicator.threads(0)
    with pytest.raises(longnet.ConfigError, match="timeout: found -1"):
        longnet.Communicator.threads(1, timeout=-1)
    (alone,) = longnet.Communicator.threads(1)
    assert isinstance(alone, ThreadCommunicator)
    assert repr(alone) == "<ThreadCommunicator rank 0 of 1 on cpu>"
