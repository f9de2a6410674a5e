"""Dilated attention on a CPU beside a matrix product of the same run.

GFLOP/s count the (query, key) pairs that the definition needs: 4 D a pair forward, 10 D backward.
Each repetition times a product, forward and backward in turn, every other one the other way
round; ratios are taken within a repetition, and medians are reported. The two rates that are
compared, and the two lengths, are measured in turn, as a processor's speed drifts.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

import longnet
from longnet.bench.devices import CpuDevice
from longnet.bench.report import aligned, header, publish

PRODUCT_SIZE = 2048
HEAD_DIM = 64
INPUT_SETS = 2

# Single levels, all with 2048 rows a segment: w = 2048 r, on tensors of one size.
LEVEL_ROWS = 2048
LEVEL_TOKENS = 131_072
LEVEL_RATES = 1, 2, 4, 8, 16, 64
COMPARED_RATES = 1, 16
LEVEL_HEADS = 8

# The paper's configuration; the long comparison has few heads so that it ends within minutes.
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


@dataclass
class Case:
    """What is measured: one batch item (1, tokens, heads, dim) in float32."""

    name: str
    attention: longnet.DilatedAttention
    tokens: int
    heads: int
    dim: int = HEAD_DIM


def measure(device: CpuDevice, cases: Sequence[Case], repeats: int) -> list[Row]:
    """Forward and backward of each case, the cases in turn, so that they can be compared."""
    runs = [_Run(device, case, min(INPUT_SETS, repeats)) for case in cases]
    device.product_seconds(PRODUCT_SIZE)
    for repeat in range(repeats):
        for run in runs if repeat % 2 == 0 else reversed(runs):
            run.repeat(repeat)
    return [run.row() for run in runs]


class _Run:
    """A case's inputs, and what its repetitions took."""

    def __init__(self, device: CpuDevice, case: Case, sets: int) -> None:
        self._device, self._case = device, case
        rng = np.random.default_rng()
        shape = 1, case.tokens, case.heads, case.dim
        self._sets = []
        for _ in range(sets):
            q, k, v, dout = (device.random(rng, shape) for _ in range(4))
            saved = device.run(case.attention.forward, q, k, v).results
            self._sets.append({"forward": (q, k, v), "backward": (dout, q, k, v, *saved)})
        self._seconds: dict[str, list[float]] = {"product": [], "forward": [], "backward": []}
        self._extra = {"forward": 0.0, "backward": 0.0}

    def repeat(self, number: int) -> None:
        """Time a product and both passes, every other time in the other order."""
        inputs = self._sets[number % len(self._sets)]
        for step in self._seconds if number % 2 == 0 else reversed(self._seconds):
            if step == "product":
                self._seconds[step].append(self._device.product_seconds(PRODUCT_SIZE))
            else:
                done = self._device.run(getattr(self._case.attention, step), *inputs[step])
                self._seconds[step].append(done.seconds)
                self._extra[step] = max(self._extra[step], done.extra)
                del done  # as a training step does: its memory serves the next call

    def row(self) -> Row:
        """Medians over the repetitions."""
        case, seconds = self._case, self._seconds
        pairs = case.attention.pairs(case.tokens, case.heads)
        flops = {
            "product": 2 * PRODUCT_SIZE**3,
            "forward": 4 * case.dim * pairs,
            "backward": 10 * case.dim * pairs,
        }
        speed = {step: flops[step] * 1e-9 / np.array(seconds[step]) for step in seconds}
        levels = zip(case.attention.segment_lengths, case.attention.dilation_rates, strict=True)
        return Row(
            name=case.name,
            levels=" ".join(f"{w}/{r}" for w, r in levels),
            tokens=case.tokens,
            heads=case.heads,
            pairs=pairs,
            product=median(speed["product"]),
            forward=median(speed["forward"]),
            forward_ratio=median(speed["forward"] / speed["product"]),
            forward_us=median(seconds["forward"]) / case.tokens * 1e6,
            forward_extra=self._extra["forward"],
            backward=median(speed["backward"]),
            backward_ratio=median(speed["backward"] / speed["product"]),
            backward_us=median(seconds["backward"]) / case.tokens * 1e6,
            backward_extra=self._extra["backward"],
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
        ("GFLOP/s, r = 16 over r = 1", "{}", level_name(16), level_name(1)),
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

    def add(repeats: int, *cases: Case) -> None:
        for case in cases:
            print(
                f"{case.name}: {case.tokens:,} tokens, {case.heads} heads",
                file=sys.stderr,
                flush=True,
            )
        rows.extend(measure(device, cases, repeats))

    def level(rate: int) -> Case:
        attention = longnet.DilatedAttention((LEVEL_ROWS * rate,), (rate,))
        return Case(level_name(rate), attention, LEVEL_TOKENS, LEVEL_HEADS)

    add(repeats, *(level(rate) for rate in COMPARED_RATES))
    for rate in LEVEL_RATES:
        if rate not in COMPARED_RATES:
            add(repeats, level(rate))
    names = [level_name(rate) for rate in LEVEL_RATES]
    rows.sort(key=lambda row: names.index(row.name))
    paper = longnet.DilatedAttention(*PAPER)
    add(min(repeats, 3), Case("paper", paper, SHORT, PAPER_HEADS))
    if long:
        add(
            min(repeats, 3),
            *(Case(long_name(tokens), paper, tokens, LONG_HEADS) for tokens in (SHORT, LONG)),
        )

    facts = header(device.name, device.hardware())
    publish("attention", facts, table(rows), map(asdict, rows), folder)
    return 0
