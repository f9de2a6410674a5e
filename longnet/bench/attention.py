"""Speed and memory of dilated attention beside a matrix product of the same run.

GFLOP/s count the (query, key) pairs that the definition needs: 4 D a pair forward, 10 D backward.
Each repetition times a product, forward and backward in turn, every other one the other way
round; ratios are taken within a repetition, and medians are reported.
"""

import argparse
import datetime
import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

import longnet
from longnet.bench.devices import DEVICES, CpuDevice

PRODUCT_SIZE = 2048
HEAD_DIM = 64
INPUT_SETS = 2

# Single levels, all with 2048 rows a segment: w = 2048 r.
LEVEL_ROWS = 2048
LEVEL_RATES = 1, 2, 4, 8, 16, 64
LEVEL_HEADS = 8

# The paper's configuration; the long comparison has few heads so that it ends within a minute.
PAPER = (2048, 4096, 8192, 16384, 32768), (1, 2, 4, 6, 12)
PAPER_HEADS, LONG_HEADS = 12, 2
SHORT, LONG = 65_536, 1_048_576


@dataclass
class Row:
    """One line of the table: GFLOP/s, microseconds a token, memory as a share."""

    name: str
    levels: str
    tokens: int
    heads: int
    pairs: int
    product: float
    forward: float
    forward_ratio: float
    forward_us: float
    forward_extra: float
    backward: float
    backward_ratio: float
    backward_us: float
    backward_extra: float


def measure(
    device: CpuDevice,
    name: str,
    attention: longnet.DilatedAttention,
    tokens: int,
    heads: int,
    repeats: int,
    dim: int = HEAD_DIM,
) -> Row:
    """Forward and backward of one batch item (1, tokens, heads, dim) in float32."""
    rng = np.random.default_rng()
    sets = []
    for _ in range(min(INPUT_SETS, repeats)):
        q, k, v, dout = (device.random(rng, (1, tokens, heads, dim)) for _ in range(4))
        saved = device.run(attention.forward, q, k, v).results
        sets.append({"forward": (q, k, v), "backward": (dout, q, k, v, *saved)})
    device.product_seconds(PRODUCT_SIZE)

    seconds: dict[str, list[float]] = {"product": [], "forward": [], "backward": []}
    extra = {"forward": 0.0, "backward": 0.0}
    for repeat in range(repeats):
        for step in seconds if repeat % 2 == 0 else reversed(seconds):
            if step == "product":
                seconds[step].append(device.product_seconds(PRODUCT_SIZE))
            else:
                done = device.run(getattr(attention, step), *sets[repeat % len(sets)][step])
                seconds[step].append(done.seconds)
                extra[step] = max(extra[step], done.extra)
                del done  # as a training step does: its memory serves the next call

    pairs = attention.pairs(tokens, heads)
    flops = {
        "product": 2 * PRODUCT_SIZE**3,
        "forward": 4 * dim * pairs,
        "backward": 10 * dim * pairs,
    }
    speed = {step: flops[step] * 1e-9 / np.array(seconds[step]) for step in seconds}
    levels = zip(attention.segment_lengths, attention.dilation_rates, strict=True)
    return Row(
        name=name,
        levels=" ".join(f"{w}/{r}" for w, r in levels),
        tokens=tokens,
        heads=heads,
        pairs=pairs,
        product=median(speed["product"]),
        forward=median(speed["forward"]),
        forward_ratio=median(speed["forward"] / speed["product"]),
        forward_us=median(seconds["forward"]) / tokens * 1e6,
        forward_extra=extra["forward"],
        backward=median(speed["backward"]),
        backward_ratio=median(speed["backward"] / speed["product"]),
        backward_us=median(seconds["backward"]) / tokens * 1e6,
        backward_extra=extra["backward"],
    )


COLUMNS = {  # field: heading, format
    "name": ("levels", "{}"),
    "tokens": ("tokens", "{:,}"),
    "heads": ("H", "{}"),
    "product": ("product", "{:.0f}"),
    "forward": ("forward", "{:.0f}"),
    "forward_ratio": ("ratio", "{:.3f}"),
    "forward_us": ("us/token", "{:.2f}"),
    "forward_extra": ("extra", "{:.2%}"),
    "backward": ("backward", "{:.0f}"),
    "backward_ratio": ("ratio", "{:.3f}"),
    "backward_us": ("us/token", "{:.2f}"),
    "backward_extra": ("extra", "{:.2%}"),
}


def table(rows: list[Row]) -> str:
    """The rows as aligned text, GFLOP/s where no unit is given, and what follows from them."""
    lines = [[heading for heading, _ in COLUMNS.values()]]
    for row in rows:
        lines.append([form.format(getattr(row, name)) for name, (_, form) in COLUMNS.items()])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return "\n".join([*text, *comparisons(rows)])


def comparisons(rows: list[Row]) -> list[str]:
    """Sparse beside dense, and long beside short, where both were measured."""
    found = {row.name: row for row in rows}
    lines = []
    for what, field, above, below in (
        # of ratios, as the processor's speed may drift from one row to the other
        (
            "GFLOP/s beside the product's, r = 16 over r = 1",
            "{}_ratio",
            level_name(16),
            level_name(1),
        ),
        (f"time a token of {LONG:,} over {SHORT:,}", "{}_us", long_name(LONG), long_name(SHORT)),
    ):
        if above in found and below in found:
            forward, backward = (
                getattr(found[above], field.format(x)) / getattr(found[below], field.format(x))
                for x in ("forward", "backward")
            )
            lines.append(f"{what}: forward {forward:.3f}, backward {backward:.3f}")
    return lines


def level_name(rate: int) -> str:
    return f"{LEVEL_ROWS * rate}/{rate}"


def long_name(tokens: int) -> str:
    return f"paper, {LONG_HEADS} heads, {tokens}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--repeats", type=positive, default=5, help="repetitions (default: 5)")
    parser.add_argument(
        "--long", action="store_true", help=f"also compare {LONG:,} tokens with {SHORT:,}"
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write attention_DEVICE.jsonl and .txt there (default: bench/results)",
    )


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected 1 or more")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, and save it where asked."""
    device = DEVICES[options.device]()
    rows: list[Row] = []

    def add(name: str, levels: tuple, tokens: int, heads: int, repeats: int) -> None:
        print(f"{name}: {tokens:,} tokens, {heads} heads", file=sys.stderr, flush=True)
        attention = longnet.DilatedAttention(*levels)
        rows.append(measure(device, name, attention, tokens, heads, repeats))

    for rate in LEVEL_RATES:
        w = LEVEL_ROWS * rate
        add(level_name(rate), ((w,), (rate,)), max(w, 8 * LEVEL_ROWS), LEVEL_HEADS, options.repeats)
    add("paper", PAPER, SHORT, PAPER_HEADS, min(options.repeats, 3))
    if options.long:
        add(long_name(SHORT), PAPER, SHORT, LONG_HEADS, options.repeats)
        add(long_name(LONG), PAPER, LONG, LONG_HEADS, 1)

    header = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(),
        "device": device.name,
        **device.hardware(),
    }
    text = "\n".join([*(f"{name}: {value}" for name, value in header.items()), "", table(rows)])
    print(text)
    if options.save is not None:
        save(Path(options.save) / f"attention_{device.name}", header, rows, text)
    return 0


def command() -> str:
    """The command line of this process, its settings before it."""
    program = sys.argv[0]
    program = (
        f"python {os.path.relpath(program)}" if program.endswith(".py") else Path(program).name
    )
    names = "LONGNET_CPU", "LONGNET_NUM_THREADS"
    settings = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    return " ".join([*settings, program, *map(shlex.quote, sys.argv[1:])])


def save(path: Path, header: dict, rows: list[Row], text: str) -> None:
    """The header and a row a line as JSON, and the text beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *map(asdict, rows)]
    path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path.with_suffix(".txt").write_text(text + "\n")


def main() -> int:
    """The command line of bench/attention.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())
