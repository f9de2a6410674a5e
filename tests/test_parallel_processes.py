"""Dilated attention of one sequence over processes: MPI's ranks, and GPUs through NCCL."""

import json
from pathlib import Path

import pytest
from attention_cases import NAMES
from ranks import gpus, mpirun, needs_mpi

RANK = str(Path(__file__).with_name("parallel_rank.py"))
# Of the largest element of a result. With 16-bit inputs a GPU rounds probabilities too: an element
# is off by several halves of its last place at most.
LIMITS = {"float32": 1e-5, "float16": 4 * 2.0**-11, "bfloat16": 4 * 2.0**-8}


def check(output, cases, dtype):
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert len(lines) >= cases
    wrong = [line for line in lines if not max(line[name] for name in NAMES) <= LIMITS[dtype]]
    assert not wrong, wrong[:3]


@needs_mpi
@pytest.mark.parametrize("size", [2, 3, 4])
def test_mpi(size):
    done = mpirun(size, RANK, "cpu", "float32", "30")
    assert done.returncode == 0, done.stderr
    check(done.stdout, 30 * size, "float32")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", LIMITS)
def test_gpus(dtype):
    for done in gpus(2, RANK, "cuda", dtype, "40"):
        assert done.returncode == 0, done.stderr
        check(done.stdout, 40, dtype)
