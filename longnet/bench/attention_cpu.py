"""Dilated attention on a CPU beside a matrix product of the same run.

GFLOP/s count the (query, key) pairs that the definition needs: 4 D a pair forward, 10 D backward.
Each repetition times a product, forward and backward in turn, every other one the other way
round; ratios are taken within a repetition, and medians are reported.
"""

import sys
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

import longnet
from longnet.bench.devices import CpuDevice
from longnet.bench.report import aligned, header, publish

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
    return "\n".join([*aligned(lines), *comparisons(rows)])


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


def run(repeats: int, long: bool, folder: str | None) -> int:
    """Measure, print the table, and save it where asked."""
    device = CpuDevice()
    rows: list[Row] = []

    def add(name: str, levels: tuple, tokens: int, heads: int, repeats: int) -> None:
        print(f"{name}: {tokens:,} tokens, {heads} heads", file=sys.stderr, flush=True)
        attention = longnet.DilatedAttention(*levels)
        rows.append(measure(device, name, attention, tokens, heads, repeats))

    for rate in LEVEL_RATES:
        w = LEVEL_ROWS * rate
        add(level_name(rate), ((w,), (rate,)), max(w, 8 * LEVEL_ROWS), LEVEL_HEADS, repeats)
    add("paper", PAPER, SHORT, PAPER_HEADS, min(repeats, 3))
    if long:
        add(long_name(SHORT), PAPER, SHORT, LONG_HEADS, repeats)
        add(long_name(LONG), PAPER, LONG, LONG_HEADS, 1)

    facts = header(device.name, device.hardware())
    publish("attention", facts, table(rows), map(asdict, rows), folder)
    return 0
