"""What torchrun, mpirun and srun tell a rank."""

import socket

import numpy as np
import pytest
from ranks import mpirun, needs_mpi

import longnet
from longnet import CommunicatorError
from longnet.communicator import environment
from longnet.communicator.environment import Launch

LAUNCHES = {
    "torchrun": {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"},
    "Open MPI": {
        "OMPI_COMM_WORLD_RANK": "5",
        "OMPI_COMM_WORLD_SIZE": "8",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    },
    "PMI": {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"},
    "Slurm": {
        "SLURM_PROCID": "5",
        "SLURM_NTASKS": "8",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_ID": "0",
    },
}


@pytest.fixture
def alone(monkeypatch):
    """No launcher's variables."""
    for name in [name for names in LAUNCHES.values() for name in names]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("launcher", LAUNCHES)
def test_each_launcher_is_understood(launcher):
    assert environment.read(LAUNCHES[launcher]) == Launch(launcher, 5, 8, 1)


def test_the_inner_launcher_comes_first():
    both = {**LAUNCHES["Slurm"], **LAUNCHES["torchrun"], "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
    assert environment.read(both).launcher == "torchrun"


def test_a_script_of_sbatch_is_alone():
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "77"}
    assert environment.read(script) == Launch("none", 0, 1, 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "torchrun: found no WORLD_SIZE, expected it beside"),
        ({"PMI_SIZE": "2"}, "PMI: found no PMI_RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "found RANK=2, expected 0 to WORLD_SIZE - 1 = 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "found RANK=-1"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK: found 'one', expected a number"),
    ],
)
def test_variables_that_make_no_sense(variables, message):
    with pytest.raises(CommunicatorError, match=message):
        environment.read(variables)


def test_where_rank_0_listens():
    torchrun, slurm, mpi = (Launch(name, 1, 2, 1) for name in ("torchrun", "Slurm", "Open MPI"))
    assert environment.master(torchrun, {"MASTER_ADDR": "host7", "MASTER_PORT": "1234"}) == (
        "host7",
        1235,
    )
    assert environment.master(slurm, {"MASTER_ADDR": "host7"}) == ("host7", 29501)
    nodes = {"SLURM_STEP_NODELIST": "node[003-007,012],login1", "SLURM_JOB_ID": "15002"}
    assert environment.master(slurm, nodes) == ("node003", 15002)
    assert environment.master(mpi, {}) is None  # MPI tells


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node7", "node7"), ("a1,a2", "a1"), ("n[03,05]", "n03"), ("rack-2-n[11-12]", "rack-2-n11")],
)
def test_first_of_slurms_hosts(nodes, first):
    assert environment.first_host(nodes) == first


@pytest.mark.usefixtures("alone")
def test_alone():
    with longnet.Communicator.from_environment("cpu", timeout=3) as c:
        assert (c.rank, c.size, c.device, c.timeout) == (0, 1, "cpu", 3)
        x = np.arange(3.0, dtype=np.float32)
        c.all_reduce(x)
        np.testing.assert_array_equal(x, [0, 1, 2])


@pytest.mark.usefixtures("alone")
def test_devices():
    with pytest.raises(longnet.DeviceError, match="found 'tpu', expected 'cpu', 'cuda' or"):
        longnet.Communicator.from_environment("tpu")


def test_torchrun_on_the_cpu_names_mpirun(monkeypatch):
    for name, value in LAUNCHES["torchrun"].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CommunicatorError, match=r"torchrun: .* start them with mpirun or srun"):
        longnet.Communicator.from_environment("cpu")


JOIN = """
import os
from longnet.communicator import environment
launch = environment.read(os.environ)
joined = environment.rendezvous(launch, os.environ, 20)
ranks, local_ranks = zip(*joined.gather((launch.rank, launch.local_rank), "gather"))
print(ranks, sorted(local_ranks), flush=True)
joined.close()
"""


@needs_mpi
@pytest.mark.parametrize("way", ["MPI tells", "MASTER_ADDR"])
def test_ranks_of_mpirun_find_each_other(way):
    """As they do for NCCL, which takes no messages of MPI."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port - 1)}
    done = mpirun(3, "-c", JOIN, **(address if way == "MASTER_ADDR" else {}))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(0, 1, 2) [0, 1, 2]"] * 3
