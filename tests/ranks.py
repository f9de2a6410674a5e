"""Runs something on several ranks: threads of this process, processes of MPI, or GPUs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import longnet
from longnet import _core

# Of Open MPI: ranks outlive a dead one, more ranks than processors, and as root in a container.
OPTIONS = ["--enable-recovery", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ONE_THREAD = {"LONGNET_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"
)


def run_threads(
    size: int, call: Callable[[longnet.Communicator], Any], timeout: float = 30
) -> list[Any]:
    """What `call` returns or raises on each of `size` threads."""
    outcomes: list[Any] = [None] * size

    def run(communicator: longnet.Communicator) -> None:
        try:
            outcomes[communicator.rank] = call(communicator)
        except BaseException as error:
            outcomes[communicator.rank] = error

    threads = [
        threading.Thread(target=run, args=(communicator,), daemon=True)
        for communicator in longnet.Communicator.threads(size, timeout)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout + 30)
        assert not thread.is_alive(), "a rank hangs"
    return outcomes


def returned(outcomes: list[Any]) -> list[Any]:
    """What `run_threads` gave, where no rank raised; else the first error."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def mpirun(
    size: int, *arguments: str, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Start Python with `arguments` on `size` ranks of MPI."""
    launcher = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert launcher is not None, "found mpi4py, but no mpirun beside it"
    tests = Path(__file__).parent
    path = os.pathsep.join([str(Path(longnet.__file__).parents[1]), str(tests)])
    return subprocess.run(
        [launcher, *OPTIONS, "-n", str(size), sys.executable, "-P", *arguments],
        env={**os.environ, **ROOT, **ONE_THREAD, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def gpus(
    size: int, *arguments: str, timeout: float = 100
) -> list[subprocess.CompletedProcess[str]]:
    """Start Python with `arguments` on `size` ranks, a GPU each, with torchrun's variables."""
    found = len(_core.cuda_status()[2]["devices"])
    if found < size:
        pytest.skip(f"{found} GPU, needs {size}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # of the rendezvous: the one after MASTER_PORT
    path = os.pathsep.join([str(Path(longnet.__file__).parents[1]), str(Path(__file__).parent)])
    launch = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port - 1),
        "PYTHONPATH": path,
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", *arguments],
            env={**os.environ, **launch, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    results = []
    try:
        for process in processes:
            out, errors = process.communicate(timeout=timeout)
            results.append(
                subprocess.CompletedProcess(process.args, process.returncode, out, errors)
            )
    finally:
        for process in processes:
            process.kill()
    return results
