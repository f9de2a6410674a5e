"""Importing longnet does not import PyTorch, and longnet.torch says what it lacks."""

import pytest


def test_longnet_alone_does_not_import_torch(python):
    code = "import sys, longnet, longnet.cli, longnet.model, longnet.train\n"
    result = python("-c", code + "print('torch' in sys.modules)")
    assert result.stdout == "False\n", result.stderr


@pytest.mark.parametrize(
    ("stand_in", "message"),
    [
        ("None", "longnet.torch needs PyTorch 2.6 or later: pip install torch"),
        (
            "types.SimpleNamespace(__version__='2.5.1+cpu')",
            "longnet.torch: PyTorch 2.5.1+cpu, expected 2.6 or later: pip install -U torch",
        ),
    ],
    ids=["absent", "old"],
)
def test_without_torch(python, stand_in, message):
    code = (
        "import sys, types\n"
        f"sys.modules['torch'] = {stand_in}\n"
        "try:\n"
        "    import longnet.torch\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    result = python("-c", code)
    assert result.stdout == message + "\n", result.stderr
