"""The command: exit codes, one line for an error, and what it hands on."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import longnet
from longnet import errors
from longnet.cli import info, main


def run(capsys, *arguments):
    """Exit code, standard output and standard error."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_info(capsys):
    code, out, err = run(capsys, "info", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["longnet"] == longnet.__version__
    code, out, err = run(capsys, "info")
    assert (code, err) == (0, "")
    assert out.startswith("longnet ")


def test_version_and_help(capsys):
    assert run(capsys, "--version") == (0, f"longnet {longnet.__version__}\n", "")
    for arguments in (["--help"], ["train", "--help"], ["info", "--help"], ["bench", "--help"]):
        code, out, err = run(capsys, *arguments)
        assert (code, err) == (0, "")
        assert "usage: longnet" in out
        assert "exit codes: 0 done" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--stpes", "3"], "unrecognized arguments: --stpes 3"),
        (["train", "--config"], "argument --config: expected one argument"),
        (["bench", "speed"], "invalid choice: 'speed'"),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("longnet: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.ConfigError("a\nb"), 2, "a b"),
        (errors.DataError("no file"), 2, "no file"),
        (errors.CheckpointError("damaged"), 1, "damaged"),
        (errors.OutOfMemoryError("out of memory"), 1, "out of memory"),
        (errors.DeviceError("no GPU"), 1, "no GPU"),
        (MemoryError(), 1, "MemoryError"),
        (PermissionError(13, "Permission denied", "x"), 1, "x: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line_and_a_code(capsys, monkeypatch, error, code, line):
    def fail(options):
        raise error

    monkeypatch.setattr(info, "run", fail)
    monkeypatch.delenv("LONGNET_TRACEBACK", raising=False)
    assert run(capsys, "info") == (code, "", f"longnet: error: {line}\n")
    monkeypatch.setenv("LONGNET_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["info"])


def test_what_is_no_error_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(info, "run", lambda options: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["info"])


def test_bench_hands_its_options_on(capsys, monkeypatch):
    def add_arguments(parser):
        parser.add_argument("--repeats", type=int)
        parser.add_argument("--long", action="store_true")

    seen = []
    module = SimpleNamespace(
        __doc__="Speed.",
        add_arguments=add_arguments,
        run=lambda options: (seen.append((options.repeats, options.long)), 5)[1],
    )
    monkeypatch.setitem(sys.modules, "longnet.bench.attention", module)
    assert run(capsys, "bench", "attention", "--repeats", "3", "--long") == (5, "", "")
    assert run(capsys, "bench", "attention") == (5, "", "")
    assert seen == [(3, True), (None, False)]
    code, out, _ = run(capsys, "bench", "attention", "--help")
    assert code == 0
    assert "usage: longnet bench attention" in out
    code, _, err = run(capsys, "bench", "attention", "--repeats", "x")
    assert code == 2
    assert err.startswith("longnet: error: argument --repeats: invalid int value: 'x'")


def test_a_reader_that_goes_away(python):
    code = (
        "import os, subprocess, sys; "
        "r, w = os.pipe(); os.close(r); "
        "p = subprocess.run([sys.executable, '-P', '-m', 'longnet', 'info'], stdout=w,"
        " stderr=subprocess.PIPE, text=True); print(p.returncode, p.stderr)"
    )
    result = python("-c", code)
    assert result.stdout.strip() == "1 longnet: error: Broken pipe"


def test_no_standard_output_at_all(python):
    code = (
        "import os, subprocess, sys; "
        "p = subprocess.run([sys.executable, '-P', '-m', 'longnet', 'info'],"
        " preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE, text=True); "
        "print(p.returncode, p.stderr)"
    )
    assert python("-c", code).stdout.strip() == "0"


def test_the_command_is_quick_and_light(python):
    """What only training needs is not imported for anything else."""
    heavy = "matplotlib", "tqdm", "tokenizers", "longnet.model", "longnet.train", "longnet.data"
    code = (
        "import sys; from longnet.cli import main; main(['info']); "
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    result = python("-c", code)
    assert result.stderr == "[]\n"


def test_python_dash_m(python):
    result = python("-m", "longnet", "info", "--jsno")
    assert isinstance(result, subprocess.CompletedProcess)
    assert result.returncode == 2
    assert result.stderr.startswith("longnet: error: unrecognized arguments: --jsno")
