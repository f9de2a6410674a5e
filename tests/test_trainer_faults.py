"""A rank of a training run on processes is killed, or asked to end: nobody hangs, and the last
checkpoint is there.

`LONGNET_TEST_MOMENTS=20 pytest tests/test_trainer_faults.py -k killed` kills at as many moments.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ranks import mpirun, needs_mpi
from trainer_cases import mesh_config

from longnet.checkpoint import latest
from longnet.train import read_checkpoint, read_metrics

RANK = str(Path(__file__).with_name("trainer_rank.py"))
MOMENTS = int(os.environ.get("LONGNET_TEST_MOMENTS", "2"))
ALL = set(range(4))

pytestmark = needs_mpi


class Run:
    """A run of two times two ranks that trains."""

    def __init__(self, folder: Path, process: Future) -> None:
        self.folder = folder
        self.process = process
        self.pids = {rank: int((folder / f"{rank}.pid").read_text()) for rank in ALL}

    def said(self, rank: int) -> str:
        """What a rank has written to standard error last."""
        return (self.folder / f"{rank}.err").read_text().splitlines()[-1]

    def code(self, rank: int) -> int:
        """A rank's exit code."""
        return int((self.folder / f"{rank}.code").read_text())

    def seconds_until_end(self, ranks: set[int], limit: float) -> float:
        """Wait for the end of some ranks' processes."""
        start = time.monotonic()
        while any(map(lives, (self.pids[rank] for rank in ranks))):
            assert time.monotonic() < start + limit, "a rank hangs"
            time.sleep(0.01)
        return time.monotonic() - start


def lives(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def training(folder: Path, timeout: float) -> Iterator[Run]:
    """A run that has made its first checkpoint; what is left of it is killed."""
    options = {"steps": 100_000, "warmup_steps": 5, "save_every": 7, "eval_every": 5}
    config = mesh_config(folder, "run", 2, 2, timeout=timeout, **options)
    config.save(folder / "run.toml")
    arguments = ["train", "--config", str(folder / "run.toml")]
    with ThreadPoolExecutor() as pool:
        process = pool.submit(mpirun, 4, RANK, str(folder), *arguments)
        try:
            while latest(folder / "run") is None:
                assert not process.done(), process.result().stderr
                time.sleep(0.01)
            run = Run(folder, process)
            yield run
        finally:
            for path in folder.glob("*.pid"):
                pid = int(path.read_text())
                if lives(pid):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_a_rank_that_is_killed_is_named_by_all_others(tmp_path, seed):
    rng = np.random.default_rng(seed)
    victim, timeout = int(rng.integers(4)), 20
    with training(tmp_path, timeout) as run:
        time.sleep(rng.uniform(0, 2))
        os.kill(run.pids[victim], signal.SIGKILL)
        seconds = run.seconds_until_end(ALL - {victim}, timeout + 5)
        assert run.process.result().returncode != 0
    for rank in ALL - {victim}:
        print(f"moment {seed}, {seconds:.2f} s: {run.said(rank)}")
        assert run.code(rank) == 1
        named = rf"longnet: error: rank {rank} of 4, \w+: .*rank {victim} died"
        assert re.match(named, run.said(rank)), run.said(rank)
    checkpoint = read_checkpoint(tmp_path / "run")
    steps = [record["step"] for record in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert checkpoint.step <= steps[-1]
    assert steps == list(range(1, len(steps) + 1))


def test_a_rank_that_is_asked_to_end_ends_all_and_saves(tmp_path):
    with training(tmp_path, timeout=20) as run:
        os.kill(run.pids[2], signal.SIGTERM)
        run.seconds_until_end(ALL, 20)
    assert [run.code(rank) for rank in sorted(ALL)] == [128 + signal.SIGTERM] * 4
    last = read_metrics(tmp_path / "run/metrics.jsonl")[-1]["step"]
    assert read_checkpoint(tmp_path / "run").step == last
    assert f"longnet: stopped by SIGTERM after step {last} of" in run.said(0)
    assert [len((tmp_path / f"{rank}.err").read_text()) for rank in (1, 2, 3)] == [0, 0, 0]
