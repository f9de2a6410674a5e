"""Attention's time a token, forward and backward, against the length of the sequence: dense, the
paper's levels, and levels that grow by 4 from 2,048 to the whole sequence."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.bench import report
from longnet.bench.devices import CpuDevice, gpu_hardware
from longnet.bench.figures import draw
from longnet.bench.growing import growing_levels
from longnet.bench.parallel_steps import dtype_on
from longnet.bench.ranks import timed

HEADS, HEAD_DIM = 12, 64
SHORTEST = 2048
PAPER = (2048, 4096, 8192, 16384, 32768), (1, 2, 4, 6, 12)
LONGEST = {"cpu": 1 << 18, "cuda": 1 << 22}
SECONDS = {"cpu": 8.0, "cuda": 4.0}  # a kind ends where 4 times its last call is longer
KINDS = {
    "dense": lambda N: ([N], [1]),
    "the paper's levels": lambda _: PAPER,
    "levels to the whole sequence": growing_levels,
}


@dataclass
class Row:
    """One kind of attention at one length."""

    kind: str
    tokens: int
    ms: float
    us_per_token: float
    tflops: float


def measure(device: str, longest: int, repeats: int) -> Iterator[Row]:
    """A row for each length of each kind: the median of some calls after a first one."""
    for kind, levels in KINDS.items():
        tokens = SHORTEST
        while tokens <= longest:
            attention = DilatedAttention(*levels(tokens))
            times = _seconds(attention, device, tokens, repeats)
            seconds = median(times)
            flops = 14 * HEAD_DIM * attention.pairs(tokens, HEADS)
            yield Row(kind, tokens, seconds * 1e3, seconds / tokens * 1e6, flops / seconds / 1e12)
            if seconds * 4 > SECONDS[device]:
                break
            tokens *= 2


def _seconds(attention: DilatedAttention, device: str, tokens: int, repeats: int) -> list[float]:
    """Of forward and backward together."""
    inputs = [_random(device, tokens, seed) for seed in range(4)]

    def call() -> None:
        q, k, v, dout = inputs
        out, lse = attention.forward(q, k, v)
        attention.backward(dout, q, k, v, out, lse)

    call()
    return [timed(device, call)[0] for _ in range(repeats)]


def _random(device: str, tokens: int, seed: int) -> Tensor:
    x = Tensor.empty((1, tokens, HEADS, HEAD_DIM), dtype_on(device), device)
    ops.normal(x, 0.0, 1.0, seed)
    return x


def table(rows: Sequence[Row]) -> str:
    """A line a row."""
    lines = [["", "tokens", "ms", "us/token", "TFLOP/s"]]
    for row in rows:
        numbers = f"{row.ms:.2f}", f"{row.us_per_token:.3f}", f"{row.tflops:.3g}"
        lines.append([row.kind, f"{row.tokens:,}", *numbers])
    return "\n".join(report.aligned(lines, left=1))


def picture(path: Path, rows: Sequence[Row]) -> None:
    """Time a token over the length."""
    lines = {kind: [(r.tokens, r.us_per_token) for r in rows if r.kind == kind] for kind in KINDS}
    lengths = sorted({row.tokens for row in rows})
    draw(
        path,
        {f"attention, forward and backward, {HEADS} heads of {HEAD_DIM}, causal": lines},
        x="tokens of the sequence",
        y="microseconds a token",
        ticks={n: f"{n >> 10}K" if n < 1 << 20 else f"{n >> 20}M" for n in lengths[::2]},
        log_y=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=tuple(LONGEST), default="cpu")
    parser.add_argument("--longest", type=int, help="tokens (default: 262,144; on a GPU 4 million)")
    parser.add_argument("--repeats", type=int, default=5, help="of each length (default: 5)")
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write lengths_DEVICE.jsonl, .txt and .png there (default: bench/results)",
    )
    options = parser.parse_args(arguments)
    device = options.device
    longest = LONGEST[device] if options.longest is None else options.longest
    for name, found, least in ("longest", longest, SHORTEST), ("repeats", options.repeats, 1):
        if found < least:
            parser.error(f"--{name}: found {found}, expected {least} or more")
    hardware = CpuDevice().hardware() if device == "cpu" else gpu_hardware()
    rows = list(measure(device, longest, options.repeats))
    facts = report.header(device, hardware)
    report.publish("lengths", facts, table(rows), map(asdict, rows), options.save)
    if options.save is not None:
        picture(Path(options.save) / f"lengths_{device}.png", rows)
    return 0
