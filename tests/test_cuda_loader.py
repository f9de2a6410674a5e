"""What the user hears where the CUDA backend cannot be opened or built."""

import shutil
import sys
from pathlib import Path

import pytest

import longnet
from longnet import _core

ROOT = Path(__file__).parents[1]
ASK = "import longnet; print(longnet._core.cuda_status()[:2])"
USE = "import longnet; longnet.Tensor.empty(3, device='cuda:0')"


def test_status_says_what_there_is_or_why_not():
    available, reason, details = _core.cuda_status()
    assert available == (reason == "")
    assert details["library"].endswith("liblongnet_cuda.so")
    assert bool(details["devices"]) == available
    assert ("driver" in details) == available


def test_no_such_gpu():
    with pytest.raises(longnet.DeviceError, match=r"device cuda:99"):
        longnet.Tensor.empty(3, device="cuda:99")
    with pytest.raises(longnet.DeviceError, match=r"device cuda:-1"):
        longnet.Stream("cuda:-1")
    with pytest.raises(longnet.DeviceError, match="'cpu', expected cuda"):
        longnet.Stream("cpu")


def test_a_missing_library(python, tmp_path):
    path = tmp_path / "gone.so"
    result = python("-c", ASK, LONGNET_CUDA_LIBRARY=str(path), LONGNET_REQUIRE_CUDA="0")
    assert f"(False, \"no CUDA backend: {path} is not there; reinstall with CUDA's" in result.stdout
    result = python("-c", USE, LONGNET_CUDA_LIBRARY=str(path), LONGNET_REQUIRE_CUDA="0")
    assert result.returncode == 1
    assert f"DeviceError: device cuda:0: no CUDA backend: {path} is not there" in result.stderr


def test_a_damaged_library(python, tmp_path):
    path = tmp_path / "damaged.so"
    path.write_bytes(b"\x7fELF" + bytes(300))
    result = python("-c", USE, LONGNET_CUDA_LIBRARY=str(path), LONGNET_REQUIRE_CUDA="0")
    assert result.returncode == 1
    assert "DeviceError: device cuda:0: the CUDA backend does not load" in result.stderr
    assert str(path) in result.stderr


def test_a_library_of_another_version(python):
    result = python("-c", USE, LONGNET_CUDA_LIBRARY=_core.__file__, LONGNET_REQUIRE_CUDA="0")
    assert result.returncode == 1
    assert "is of another version of longnet" in result.stderr


def test_required_cuda_fails_the_import(python, tmp_path):
    path = tmp_path / "gone.so"
    result = python(
        "-c", "import longnet", LONGNET_CUDA_LIBRARY=str(path), LONGNET_REQUIRE_CUDA="1"
    )
    assert result.returncode == 1
    assert "DeviceError: LONGNET_REQUIRE_CUDA=1: no CUDA backend:" in result.stderr


def test_the_cpu_needs_no_cuda(python, tmp_path):
    code = "import longnet; print(longnet.Tensor.empty(3).to('cpu').device)"
    result = python("-c", code, LONGNET_CUDA_LIBRARY=str(tmp_path / "x"), LONGNET_REQUIRE_CUDA="0")
    assert result.stdout == "cpu\n", result.stderr


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("1", "LONGNET_CUDA=1: no nvcc on the PATH"),
        ("yes", "LONGNET_CUDA=yes: expected auto, 0 or 1"),
    ],
)
def test_a_build_that_cannot_be_had_fails_at_once(python, tmp_path, choice, message):
    pytest.importorskip("setuptools")
    if not (ROOT / "setup.py").exists():
        pytest.skip("no source tree")
    (tmp_path / "python").symlink_to(sys.executable)
    result = python(
        str(ROOT / "setup.py"),
        "--quiet",
        "build_ext",
        "--build-lib",
        str(tmp_path),
        LONGNET_CUDA=choice,
        PATH=str(tmp_path),
        CUDA_HOME=str(tmp_path),
    )
    assert result.returncode != 0
    assert message in result.stderr.splitlines()[-1]
    assert shutil.which("nvcc", path=str(tmp_path)) is None
