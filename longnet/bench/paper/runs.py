"""Training and scoring of the runs of a comparison, one after another, as far as time allows."""

from __future__ import annotations

import argparse
import gc
import json
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from statistics import median
from time import monotonic

import longnet
from longnet.bench import report
from longnet.bench.devices import CpuDevice, gpu_hardware
from longnet.bench.paper.cells import (
    SMALL,
    Cell,
    Scale,
    attention_flops,
    run_config,
    select,
)
from longnet.bench.paper.results import Record, Results
from longnet.bench.paper.score import nats_after_prompts, nats_by_window
from longnet.bench.paper.text import Text, open_text
from longnet.bench.paper.training import Run
from longnet.checkpoint import latest
from longnet.errors import LongNetError
from longnet.flops import flops_per_token
from longnet.model import LongNet
from longnet.train import METRICS, read_checkpoint, read_metrics
from longnet.train.signals import StopSignals

TESTED = 2, 8, 32  # lengths of the table, in units
PROMPTS = 1, 2, 4, 8, 16, 32  # lengths that are read before and with the scored tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that the two comparisons share."""
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder with train.txt and validation.txt, as bench/code_corpus.py makes it",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="every length a 32nd, a model of seconds on a CPU"
    )
    parser.add_argument("--steps", type=int, help="updates of each run (default: 1200; small: 60)")
    parser.add_argument(
        "--own-batches",
        action="store_true",
        help="each run shuffles sequences of its own length: other text in an update than others",
    )
    parser.add_argument("--only", metavar="RUN,...", help="these runs alone, such as longnet-32k")
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        metavar="M",
        help="stop after so long; the same command goes on where it stopped",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="of results, which are not measured again (default: bench/results; small: RUNS)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/paper"),
        metavar="RUNS",
        help="folder of the runs' checkpoints (default: runs/paper)",
    )


@dataclass
class Measured:
    """What there is to show.

    Attributes
    ----------
    scale : Scale
    folder : Path
        Of results.
    records : dict of Record
        By the runs' names, of those that are done, in their order.
    code : int
        To exit with.
    """

    scale: Scale
    folder: Path
    records: dict[str, Record]
    code: int


def command(
    name: str, description: str, cells: Sequence[Cell], arguments: Sequence[str] | None
) -> Measured:
    """Make the runs that a command line asks for; an error ends the process with one line."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        return measure(cells, options)
    except LongNetError as error:
        parser.exit(1, f"{name}: {error}\n")


def measure(cells: Sequence[Cell], options: argparse.Namespace) -> Measured:
    """Make the runs that are not done, those of ``--only`` alone; collect all that are."""
    scale = replace(SMALL if options.small else Scale(), same_batches=not options.own_batches)
    if options.steps is not None:
        scale = replace(scale, steps=options.steps)
    chosen = select(cells, options.only)
    folder = options.results or (options.runs if options.small else Path("bench/results"))
    results = Results(folder)
    text = open_text(options.data, options.runs, scale)
    given = {"data": text.fingerprint, "device": options.device}
    deadline = monotonic() + 60 * options.minutes
    code = 0
    with StopSignals() as stop, _time_limit(options.minutes):
        for cell in chosen:
            settings = _settings(cell, scale, given)
            if results.find(cell, settings) is not None:
                continue
            record, stopped_by = None, stop.received
            if stopped_by is None:
                run = options.runs / f"{cell.name}-{_digest(settings)}"
                record, stopped_by = _make(cell, scale, text, run, options.device)
            if record is not None:
                results.append({"cell": cell.name, "settings": settings, **record})
            if stopped_by is not None:
                print("stopped; the same command goes on", file=sys.stderr, flush=True)
                code = 0 if monotonic() >= deadline else 128 + stopped_by
                break
    done = {cell.name: results.find(cell, _settings(cell, scale, given)) for cell in cells}
    return Measured(scale, folder, {k: r for k, r in done.items() if r is not None}, code)


@contextmanager
def _time_limit(minutes: float) -> Iterator[None]:
    """Send this process SIGTERM when the time is up: training then ends with the step and saves.

    Again and again: whoever notes it may have begun to listen after the first one.
    """
    if math.isinf(minutes):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, max(60 * minutes, 1e-6), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _settings(cell: Cell, scale: Scale, given: Record) -> Record:
    """All that a run's figures depend on."""
    sizes = {k: v for k, v in asdict(scale).items() if k != "same_batches"}
    return {**sizes, "window": cell.window(scale), **given}


def _digest(settings: Record) -> str:
    return blake2b(json.dumps(settings).encode(), digest_size=4).hexdigest()


def _make(
    cell: Cell, scale: Scale, text: Text, folder: Path, device: str
) -> tuple[Record | None, signal.Signals | None]:
    """Train and score one run: its record where it came to its end, and what signal came."""
    config = run_config(
        cell, scale, train=text.train, validation=text.validation, out_dir=folder, device=device
    )
    length = cell.length(scale)
    saved = read_checkpoint(folder) if latest(folder) is not None else None
    print(f"{cell.name}: {folder}", file=sys.stderr, flush=True)
    longnet.reset_peak_memory(device)
    trainer = Run(config, cell.window(scale), saved)
    outcome = trainer.train()
    record = None
    if trainer.step == scale.steps:
        metrics = read_metrics(folder / METRICS)
        record = {
            **report.header(device, gpu_hardware() if device == "cuda" else CpuDevice().hardware()),
            "parameters": trainer.model.num_parameters(),
            "attention_flops": attention_flops(config.model, length),
            "flops_per_token": flops_per_token(trainer.model, length),
            "summary_columns": config.model.summary_columns if cell.model == "sparse" else None,
            "seconds": round(trainer.seconds, 1),
            "tokens_per_second": median(m["tokens_per_second"] for m in metrics),
            "peak_gb": longnet.memory_stats(device)["peak_bytes"] / 1e9,
            **_scores(cell, scale, text, trainer.model),
        }
    del trainer
    gc.collect()
    if device == "cuda":
        longnet.synchronize(device)
        longnet.empty_cache(device)
    return record, outcome.stopped_by


def _scores(cell: Cell, scale: Scale, text: Text, model: LongNet) -> Record:
    """Losses of all windows, by length; after prompts where the model was trained at 32K."""
    trained = None if cell.model == "longnet" else cell.length(scale)
    nats = {
        str(k): nats_by_window(model, text.inputs, text.targets, k * scale.unit, trained)
        for k in sorted({*TESTED, cell.thousands})
    }
    prompts = {
        str(k): nats_after_prompts(model, text.inputs, text.targets, k * scale.unit, scale.scored)
        for k in PROMPTS
        if cell.length(scale) == scale.longest
    }
    return {"nats": nats, "prompt_nats": prompts}
