"""One sequence over many ranks: how attention and training scale, and what communication costs.

Started by torchrun or mpirun, it measures 1, 2, 4, ... of the ranks in turn. Weak scaling holds the
tokens of a rank, strong scaling those of the sequence. Segment lengths grow by 4 from 2,048 to the
whole sequence, and dilation rates with them, so that every token has the same work. Communication
is exposed by as much as a step is longer than one in which nothing is sent.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import longnet
from longnet.bench import report
from longnet.bench.figures import draw
from longnet.bench.parallel_steps import AttentionStep, Maker, Step, TrainingStep
from longnet.bench.parallel_switch import Switch
from longnet.bench.ranks import hardware, progress, sizes, slowest, subset, timed
from longnet.communicator import Communicator
from longnet.errors import OutOfMemoryError

KINDS = "attention", "training"


@dataclass
class Row:
    """What was measured of a kind of step on some ranks; `error` where it failed."""

    kind: str
    scaling: str
    ranks: int
    tokens: int  # of the sequence
    ms: float = 0.0
    tokens_per_second: float = 0.0  # a rank
    efficiency: float | None = None  # speed of a rank over that of a rank alone
    exposed: float | None = None  # communication, as a share of the step
    received: float = 0.0  # bytes, by the rank that receives most
    formula: float = 0.0
    peak_gb: float = 0.0
    error: str = ""


def measure(
    world: Communicator,
    kind: str,
    scaling: str,
    tokens: int,
    make: Maker,
    repeats: int,
    ranks: Sequence[int],
) -> Iterator[Row]:
    """A row for each number of ranks, on the ranks that were among them."""
    first: Row | None = None
    for size in ranks:
        row = Row(kind, scaling, size, tokens * size if scaling == "weak" else tokens)
        with subset(world, size) as comm:
            if comm is None:
                continue
            try:
                _fill(row, comm, make, repeats)
            except OutOfMemoryError as error:
                if size > 1:  # the other ranks wait for this one
                    raise
                row.error = str(error)
            _release(comm.device)
        first = first or row
        if first.ranks == 1 and first.tokens_per_second:
            row.efficiency = row.tokens_per_second / first.tokens_per_second
        yield row


def _fill(row: Row, comm: Communicator, make: Maker, repeats: int) -> None:
    switch = Switch(comm)
    step = make(switch, row.tokens)
    step()  # fills the allocators
    before = comm.bytes_received
    step()
    counts = comm.gather_objects((comm.bytes_received - before, step.bytes_received()))
    row.received, row.formula = max(counts)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        for moving, found in times.items():
            seconds, peak = _seconds(comm, switch, step, moving)
            found.append(seconds)
            row.peak_gb = max(row.peak_gb, peak / 1e9)
    seconds, without = median(times[True]), median(times[False])
    row.ms = seconds * 1e3
    row.tokens_per_second = row.tokens / comm.size / seconds
    row.exposed = 1 - without / seconds if comm.size > 1 else None


def _seconds(comm: Communicator, switch: Switch, step: Step, moving: bool) -> tuple[float, int]:
    """Two steps queued together, as the trainer does; the slowest rank's time of one."""

    def two() -> None:
        step()
        step()

    comm.barrier()
    switch.moving = moving
    seconds, peak = timed(comm.device, two)
    switch.moving = True
    seconds, peak = slowest(comm, seconds, peak)
    return seconds / 2, peak


def _release(device: str) -> None:
    """Give back the memory of one step before the next one is made."""
    gc.collect()
    if device != "cpu":
        longnet.synchronize(device)
        longnet.empty_cache(device)


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    head = ["", "scaling", "ranks", "tokens", "ms", "tokens/s a rank", "of one rank's"]
    lines = [[*head, "exposed", "received MB", "formula MB", "peak GB", ""]]
    for row in rows:
        cells = [row.kind, row.scaling, f"{row.ranks}", f"{row.tokens:,}"]
        if row.error:
            lines.append([*cells, *[""] * 7, row.error[:80]])
            continue
        efficiency = "" if row.efficiency is None else f"{row.efficiency:.3f}"
        exposed = "" if row.exposed is None else f"{row.exposed:.1%}"
        cells += [f"{row.ms:.1f}", f"{row.tokens_per_second:,.0f}", efficiency, exposed]
        cells += [f"{row.received / 1e6:.2f}", f"{row.formula / 1e6:.2f}", f"{row.peak_gb:.1f}", ""]
        lines.append(cells)
    return "\n".join(report.aligned(lines, left=2))


def draw_scaling(path: Path, rows: Sequence[Row]) -> None:
    """Speed over the number of ranks, a panel for each kind of step."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row.tokens_per_second:
            lines = panels.setdefault(row.kind, {})
            lines.setdefault(row.scaling, []).append((row.ranks, row.tokens_per_second / 1e3))
    ticks: dict[float, str] = {row.ranks: f"{row.ranks}" for row in rows}
    speed = "thousand tokens a second, a rank"
    draw(path, panels, x="ranks", y=speed, ticks=ticks, bottom=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument(
        "--only", choices=KINDS, help="one attention layer's steps, or training's (default: both)"
    )
    parser.add_argument("--weak", type=int, metavar="TOKENS", help="weak scaling: tokens of a rank")
    parser.add_argument(
        "--strong", type=int, metavar="TOKENS", help="strong scaling: tokens of the sequence"
    )
    parser.add_argument("--preset", default="125m", help="the model that is trained (125m)")
    parser.add_argument(
        "--recompute",
        choices=("none", "block", "attention-kept"),
        default="block",
        help="what its backward pass computes again (block)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="of two steps each (default: 3)")
    parser.add_argument(
        "--ranks",
        type=int,
        nargs="+",
        metavar="N",
        help="how many ranks to measure (default: 1, 2, 4, ... up to all)",
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write parallel_DEVICE.jsonl, .txt and .png there (default: bench/results)",
    )
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, and save it where asked."""
    if options.weak is None and options.strong is None:
        options.refuse("found neither --weak nor --strong, expected at least one of them")
    rows: list[Row] = []
    with Communicator.from_environment(options.device) as world:
        try:
            for row in measure_all(world, options):
                rows.append(row)
                progress(world, asdict(row))
        finally:  # where a later row fails, these are worth having
            if world.rank == 0 and rows:
                facts = report.header(world.device.partition(":")[0], hardware(world))
                report.publish("parallel", facts, table(rows), map(asdict, rows), options.save)
                if options.save is not None:
                    draw_scaling(Path(options.save) / f"parallel_{facts['device']}.png", rows)
    return 0


def measure_all(world: Communicator, options: argparse.Namespace) -> Iterator[Row]:
    """The rows of all kinds and scalings that were asked for."""
    ranks = sorted(options.ranks or sizes(world.size))  # one rank is what others are compared to
    if not all(1 <= size <= world.size for size in ranks):
        options.refuse(f"--ranks: found {ranks}, expected 1 to {world.size}, all that there are")
    training = partial(TrainingStep, preset=options.preset, recompute=options.recompute)
    makers: dict[str, Maker] = {"attention": AttentionStep, "training": training}
    for kind in KINDS if options.only is None else [options.only]:
        for scaling in ("weak", "strong"):
            tokens = getattr(options, scaling)
            if tokens is not None:
                yield from measure(
                    world, kind, scaling, tokens, makers[kind], options.repeats, ranks
                )


def main() -> int:
    """The command line of bench/parallel.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())
