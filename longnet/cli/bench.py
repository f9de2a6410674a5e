"""Measure speed and memory; ``longnet bench attention --help`` shows the options of that one."""

from __future__ import annotations

import argparse
from importlib import import_module

HELP = "measure speed and memory"
_MEASUREMENTS = {
    name: f"longnet.bench.{name}"
    for name in ("attention", "billion", "generate", "parallel", "train")
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of the command."""
    parser.add_argument("measurement", choices=_MEASUREMENTS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the options of that measurement")
    parser.set_defaults(parser=parser)


def run(options: argparse.Namespace) -> int:
    """Make the measurement; return the exit code."""
    module = import_module(_MEASUREMENTS[options.measurement])
    command = options.parser
    parser = type(command)(prog=f"{command.prog} {options.measurement}", description=module.__doc__)
    module.add_arguments(parser)
    return module.run(parser.parse_args(options.options))
