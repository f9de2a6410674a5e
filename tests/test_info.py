"""What an installation says about itself."""

import json
import platform

import numpy as np
import pytest

import longnet
from longnet import _core, info


def test_what_is_collected():
    found = info.collect()
    assert found["longnet"] == longnet.__version__
    assert found["python"] == platform.python_version()
    assert found["packages"]["numpy"] == np.__version__
    assert found["cpu"]["instruction_set"] in ("scalar", "avx2", "avx512")
    assert found["cpu"]["threads"] == longnet.num_threads()
    assert found["blas"]["name"]
    used, reason, details = _core.cuda_status()
    assert found["gpu"] == {
        "used": used,
        "reason": reason,
        "devices": [device["name"] for device in details["devices"]],
    }
    assert used or reason
    assert json.loads(json.dumps(found)) == found


def test_the_text_names_everything():
    found = info.collect()
    lines = dict(line.split(maxsplit=1) for line in info.describe(found).splitlines())
    assert lines["longnet"] == longnet.__version__
    assert lines["numpy"] == np.__version__
    assert found["cpu"]["instruction_set"] in lines["cpu"]
    assert found["blas"]["name"] in lines["blas"]
    used, reason, _ = _core.cuda_status()
    assert used or lines["gpu"] == f"not used: {reason}"


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(info, "_PACKAGES", ("numpy", "no-such-package"))
    found = info.collect()
    assert found["packages"]["no-such-package"] is None
    assert "no-such-package  not installed" in info.describe(found)


@pytest.mark.parametrize("level", ["scalar", "avx2"])
def test_the_instruction_set_is_the_one_forced(python, level):
    result = python("-m", "longnet", "info", "--json", LONGNET_CPU=level)
    if result.returncode:
        assert f"this processor has no {level}" in result.stderr
    else:
        assert json.loads(result.stdout)["cpu"]["instruction_set"] == level


def test_the_number_of_threads_is_the_one_of_the_environment(python):
    result = python("-m", "longnet", "info", "--json", LONGNET_NUM_THREADS="3")
    assert json.loads(result.stdout)["cpu"]["threads"] == 3


@pytest.mark.parametrize("value", ["abc", "0", "-1", "2x", "99999999999999999999", "1000000"])
def test_a_number_of_threads_that_cannot_be(python, value):
    result = python("-c", "import longnet", LONGNET_NUM_THREADS=value)
    assert result.returncode == 1
    assert f"ConfigError: LONGNET_NUM_THREADS={value}: expected 1 to " in result.stderr
