"""Reads what torchrun, mpirun or srun tell a rank, and joins it to the others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from longnet import _core
from longnet.communicator.hub import Address
from longnet.communicator.protocol import Communicator
from longnet.communicator.rendezvous import Rendezvous
from longnet.errors import CommunicatorError, DeviceError

# Of each launcher: its name, and the variables of rank, size, and rank on the host.
LAUNCHERS = [
    ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
]
JOB = ("TORCHELASTIC_RUN_ID", "PMIX_NAMESPACE", "SLURM_JOB_ID")  # names of the job
MASTER_PORT = 29500  # torchrun's default; the rendezvous takes the next one


@dataclass(frozen=True)
class Launch:
    """What a launcher told this rank."""

    launcher: str
    rank: int
    size: int
    local_rank: int


def from_environment(device: str | None, timeout: float) -> Communicator:
    """See `Communicator.from_environment`."""
    launch = read(os.environ)
    if device is None:
        device = "cuda" if _core.cuda_status()[0] else "cpu"
    if device == "cpu":
        return _on_cpu(launch, timeout)
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise DeviceError(f"device: found {device!r}, expected 'cpu', 'cuda' or 'cuda:N'")
    if device == "cuda":
        device = f"cuda:{launch.local_rank}"
    from longnet.communicator import nccl

    return nccl.NcclCommunicator(rendezvous(launch, os.environ, timeout), device)


def read(environment: Mapping[str, str]) -> Launch:
    """Return what the launcher says in its variables; a rank alone where there is none.

    A launcher started by another, such as torchrun by srun, comes first.

    Raises
    ------
    CommunicatorError
        A variable is missing beside the others, is no number, or out of range.
    """
    for launcher, *names in LAUNCHERS:
        given = [name in environment for name in names[:2]]
        # A script of sbatch has Slurm's variables too, but is none of srun's ranks.
        if not any(given) or (launcher == "Slurm" and "SLURM_STEP_ID" not in environment):
            continue
        if not all(given):
            missing = names[given.index(False)]
            raise CommunicatorError(f"{launcher}: found no {missing}, expected it beside {names}")
        rank, size = (_number(environment, name) for name in names[:2])
        if not 0 <= rank < size:
            raise CommunicatorError(
                f"{launcher}: found {names[0]}={rank}, expected 0 to {names[1]} - 1 = {size - 1}"
            )
        local = _number(environment, names[2]) if names[2] in environment else 0
        return Launch(launcher, rank, size, local)
    return Launch("none", 0, 1, 0)


def rendezvous(launch: Launch, environment: Mapping[str, str], timeout: float) -> Rendezvous:
    """Join all ranks of the launch at the address its variables give, or MPI where they do not."""
    address = master(launch, environment)
    if address is None:
        from longnet.communicator import mpi

        return mpi.rendezvous(launch.size, timeout)
    token = " ".join(environment.get(name, "") for name in JOB)
    return Rendezvous.connect(launch.rank, launch.size, [address], timeout, token)


def master(launch: Launch, environment: Mapping[str, str]) -> Address | None:
    """Where the hub of the launch's rank 0 listens, as far as variables say."""
    if "MASTER_ADDR" in environment:
        port = _number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else MASTER_PORT
        return environment["MASTER_ADDR"], port + 1
    if launch.launcher == "Slurm" and "SLURM_STEP_NODELIST" in environment:
        job = _number(environment, "SLURM_JOB_ID")
        return first_host(environment["SLURM_STEP_NODELIST"]), 15000 + job % 15000
    if launch.launcher == "none":
        return "127.0.0.1", 0
    return None


def first_host(nodes: str) -> str:
    """The first host of Slurm's list, such as node003 of 'node[003-007,012],login1'."""
    found = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    if found is None:
        raise CommunicatorError(f"SLURM_STEP_NODELIST: found {nodes!r}, expected hosts' names")
    return found[1] + (found[2] or "")


def _on_cpu(launch: Launch, timeout: float) -> Communicator:
    if launch.launcher == "none":
        return Communicator.threads(1, timeout)[0]
    if launch.launcher == "torchrun":
        raise CommunicatorError(
            "torchrun: found ranks on 'cpu', which talk through MPI: start them with mpirun or srun"
        )
    from longnet.communicator import mpi

    return mpi.world(launch.size, timeout)


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise CommunicatorError(f"{name}: found {environment[name]!r}, expected a number") from None
    except KeyError:
        raise CommunicatorError(f"found no {name} in the environment, expected a number") from None
