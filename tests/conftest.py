"""What every test file may use."""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import longnet  # before NumPy, whose BLAS threads then sleep after a product

# isort: split
import numpy as np
import pytest

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need one. With LONGNET_REQUIRE_CUDA=1 importing longnet fails instead."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from longnet import _core

    available, reason, _ = _core.cuda_status()
    for item in marked:
        if not available:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that differ from test to test and are the same in every run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each device in turn; calls of single ops (tests/ops.py) go there."""
    import ops

    monkeypatch.setattr(ops.Call, "device", request.param)
    return request.param


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs this Python with the arguments given and with environment variables as keywords."""
    path = os.pathsep.join([str(Path(longnet.__file__).parents[1]), str(TESTS)])

    def run(*arguments: str, timeout: float = 120, **environment: str):
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Puts the numbers of CPU threads, ours and the BLAS's, back after a test that changes them."""
    from longnet import blas

    before, before_blas = longnet.num_threads(), blas.num_threads()
    yield
    longnet.set_num_threads(before)
    if before_blas is not None:
        blas.set_num_threads(before_blas)
