"""Every op's tests once more with the instruction sets that this processor would not choose."""

from pathlib import Path

import pytest

from longnet import _core

TESTS = Path(__file__).parent
OPS = [name.removesuffix("_backward") for name in vars(_core.ops) if not name.startswith("_")]
FILES = [TESTS / f"test_{op}.py" for op in dict.fromkeys(OPS) if op != "dilated_attention"]


@pytest.mark.parametrize("instruction_set", ["scalar", "avx2", "avx512"])
def test_ops(instruction_set, python):
    if instruction_set == _core.cpu_backend():
        pytest.skip("the tests as they are")
    options = "-q", "-x", "-p", "no:cacheprovider"
    environment = {"LONGNET_CPU": instruction_set, "LONGNET_POISON": "1"}
    done = python("-m", "pytest", *options, *map(str, FILES), **environment)
    if f"this processor has no {instruction_set}" in done.stdout + done.stderr:
        pytest.skip(f"this processor has no {instruction_set}")
    assert done.returncode == 0, done.stdout
