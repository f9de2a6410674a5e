"""Versions, and what this installation computes with."""

from __future__ import annotations

import argparse
import json

HELP = "versions, instruction set, threads, BLAS, GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of the command."""
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print what `longnet.info` knows; return the exit code."""
    from longnet.info import collect, describe

    found = collect()
    print(json.dumps(found, indent=2) if options.json else describe(found))
    return 0
