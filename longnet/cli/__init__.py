"""The command ``longnet``.

Exit codes: 0 done; 1 an error; 2 an error in the command line, the settings or the data;
130 stopped by Ctrl-C; 143 stopped by SIGTERM. An error is one line on standard error, or a
traceback when the environment variable LONGNET_TRACEBACK is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import longnet
from longnet.cli import bench, evaluate, generate, info, train
from longnet.errors import ConfigError, DataError, LongNetError

_EXIT_CODES = (
    "exit codes: 0 done, 1 error, 2 error in options, settings or data, 130 Ctrl-C, 143 SIGTERM"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_report(f"{message} ({self.prog} --help shows the options)", 2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line; the process's own by default.

    Returns
    -------
    int
        The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # text of a model in a terminal that has no UTF-8
    parser = _Parser(prog="longnet", description=longnet.__doc__, epilog=_EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"longnet {longnet.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for module in (train, generate, evaluate, info, bench):
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, epilog=_EXIT_CODES
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = options.run(options)
        if sys.stdout is not None:  # None where the process was started without one
            sys.stdout.flush()
        return code
    except (LongNetError, OSError, MemoryError, KeyboardInterrupt) as error:
        if os.environ.get("LONGNET_TRACEBACK") == "1":
            raise
        return _end(error)


def _warn(message: Warning | str, *unused: object) -> None:
    with contextlib.suppress(OSError):
        print(f"longnet: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _end(error: BaseException) -> int:
    """Say what ended the command; return its exit code."""
    if isinstance(error, KeyboardInterrupt):
        return _report("interrupted", 130)
    if isinstance(error, BrokenPipeError):
        # Or Python writes what is left to the same pipe when it ends.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return _report(text, 2 if isinstance(error, ConfigError | DataError) else 1)


def _report(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"longnet: error: {' '.join(message.split())}", file=sys.stderr)
    return code
