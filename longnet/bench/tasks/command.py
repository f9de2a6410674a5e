"""Trains models on tasks that make themselves, by recipes, and scores them, at longer lengths too.
A line of JSON is kept for each run that is done; those are not made again."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from longnet.bench.tasks.recipes import RECIPES, Recipe, select
from longnet.bench.tasks.results import Results, draw_all, table
from longnet.bench.tasks.runs import Interrupted, make
from longnet.errors import ConfigError, LongNetError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of bench/tasks.py; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except LongNetError as error:
        parser.exit(1, f"tasks: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument(
        "--only",
        metavar="NAME,...",
        help=f"these runs alone, of {', '.join(RECIPES)} (default: those that end in -256 on the "
        "CPU, the others on a GPU)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="of training of each run, at most; it is scored then as it is (default: the recipe's)",
    )
    parser.add_argument("--steps", type=int, metavar="S", help="updates of each run, at most")
    parser.add_argument(
        "--examples", type=int, metavar="K", help="to score at each length, at most"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="W",
        help="processes that make examples ahead (default: 0 on the CPU, 15 beside a GPU)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("bench/results"),
        metavar="FOLDER",
        help="where tasks.jsonl lies (default: bench/results)",
    )
    parser.add_argument(
        "--save", action="store_true", help="write tasks.txt and the pictures there, of all runs"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    workers = options.workers
    if workers is None:
        workers = 0 if options.device == "cpu" else 15
    results, code = Results(options.results), 0
    for recipe in select(options.only, options.device):
        recipe = _limited(recipe, options)
        settings = {**asdict(recipe), "device": options.device}
        if results.has(settings):
            continue
        with tempfile.TemporaryDirectory(prefix="longnet-") as folder:
            try:
                record = make(recipe, Path(folder) / recipe.name, options.device, workers)
            except Interrupted as stopped:
                print(f"tasks: {recipe.name} stopped by {stopped}", file=sys.stderr)
                code = 128 + stopped.number
                break
        results.append({"settings": settings, "workers": workers, **record})
    if results.records:
        text = "\n".join(table(results.records))
        print(text, flush=True)
        if options.save:
            (options.results / "tasks.txt").write_text(text + "\n")
            draw_all(results.records, options.results)
    return code


def _limited(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe as the options want it."""
    for name in ("steps", "minutes", "examples"):
        value = getattr(options, name)
        if value is None:
            continue
        if not value > 0:
            raise ConfigError(f"--{name}: found {value}, expected more than 0")
        most = getattr(recipe, name)
        recipe = replace(recipe, **{name: min(value, most)})
    return recipe
