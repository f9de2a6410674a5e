"""Speed and memory of training steps on a GPU, beside PyTorch's."""

from __future__ import annotations

import argparse
import gc
import sys
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

import longnet
from longnet.bench import report
from longnet.bench.devices import gpu_hardware
from longnet.bench.training.breakdown import record, summarise, traffic
from longnet.bench.training.cases import GROUPS, Case
from longnet.bench.training.ceilings import copy_bytes, product_flops
from longnet.bench.training.steps import DEVICE, LongnetStep, make
from longnet.errors import ConfigError

SECONDS = 4.0  # that the timed steps of one case take, at least two of them


@dataclass
class Row:
    """What was measured of a case; `error` where it failed."""

    name: str
    step_tokens: int
    ms: float | None = None
    tokens_per_second: float | None = None
    tflops: float | None = None
    peak_gb: float | None = None
    error: str | None = None


def measure(case: Case, steps: int | None = None) -> Row:
    """Median time of a step, and the most memory that one takes."""
    row = Row(case.name, case.batch * case.tokens)
    print(case.name, file=sys.stderr, flush=True)
    try:
        step = make(case)
        step()()  # compiles, fills the allocators
        step.reset_peak()
        begin = perf_counter()
        step()()
        row.peak_gb = step.peak_bytes() / 1e9
        repeats = steps or max(1, int(SECONDS / 2 / (perf_counter() - begin)))
        times = []
        for _ in range(repeats):
            begin = perf_counter()
            waits = [step() for _ in range(2)]  # queued together, as the trainer does
            waits[-1]()
            times.append((perf_counter() - begin) / 2)
        row.ms = median(times) * 1e3
        row.tokens_per_second = row.step_tokens / median(times)
        if isinstance(step, LongnetStep):
            row.tflops = row.tokens_per_second * step.flops_per_token / 1e12
    except Exception as error:  # a peer that is absent, or memory that is short, ends no run
        row.error = f"{type(error).__name__}: {error}".partition("\n")[0][:120]
    finally:
        step = None
        release()
    return row


def release() -> None:
    """Give back the memory of one case before the next."""
    gc.collect()
    longnet.synchronize(DEVICE)
    longnet.empty_cache(DEVICE)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()


def table(rows: list[Row]) -> list[str]:
    """The rows as aligned text."""
    lines = [["step", "tokens", "ms", "tokens/s", "TFLOP/s", "peak GB", ""]]
    for row in rows:
        numbers = [
            (row.ms, "{:.1f}"),
            (row.tokens_per_second, "{:,.0f}"),
            (row.tflops, "{:.0f}"),
            (row.peak_gb, "{:.1f}"),
        ]
        cells = ["" if value is None else form.format(value) for value, form in numbers]
        lines.append([row.name, f"{row.step_tokens:,}", *cells, row.error or ""])
    return report.aligned(lines, left=1)


def breakdown(case: Case) -> tuple[list[str], dict[str, object]]:
    """Where the time of a step of ours goes, as a table and as a record.

    A kind's ceiling is the speed of a large product where arithmetic bounds it, and of a copy where
    memory does.
    """
    step = LongnetStep(case)
    step()()
    found = summarise(record(step))
    flops, moved = step.flops(), traffic(step)
    product, copy = product_flops(), copy_bytes()
    whole = found.seconds["all"]
    lines = [["kind of work", "ms", "share", "speed", "of its ceiling"]]
    for kind, seconds in found.seconds.items():
        speed = part = ""
        if kind in flops and seconds:
            speed = f"{flops[kind] / seconds / 1e12:.0f} TFLOP/s"
            part = f"{flops[kind] / seconds / product:.2f}"
        elif moved.get(kind) and seconds:
            speed = f"{moved[kind] / seconds / 1e9:,.0f} GB/s"
            part = f"{moved[kind] / seconds / copy:.2f}"
        lines.append([kind, f"{seconds * 1e3:.2f}", f"{seconds / whole:.1%}", speed, part])
    kernels = [["slowest kernels", "times", "ms"]]
    kernels += [[name[:90], str(n), f"{took * 1e3:.2f}"] for name, n, took in found.slowest]
    ceilings = f"ceilings: product {product / 1e12:.0f} TFLOP/s, copy {copy / 1e9:,.0f} GB/s"
    text = [*report.aligned(lines, left=1), ceilings, "", *report.aligned(kernels, left=1)]
    return text, asdict(found) | {"flops": flops, "bytes": moved, "product": product, "copy": copy}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument(
        "--only",
        metavar="GROUPS",
        default=",".join(GROUPS),
        help=f"comma-separated, of {', '.join(GROUPS)} (default: all)",
    )
    parser.add_argument("--steps", type=int, help="timed repetitions (default: as time allows)")
    parser.add_argument(
        "--no-breakdown", action="store_true", help="leave out the table of kinds of work"
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write train_cuda.jsonl and .txt there (default: bench/results)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, and save it where asked."""
    names = options.only.split(",")
    for name in names:
        if name not in GROUPS:
            raise ConfigError(f"--only: found {name!r}, expected some of {', '.join(GROUPS)}")
    rows = [measure(case, options.steps) for name in names for case in GROUPS[name]]
    lines = table(rows)
    records = [asdict(row) for row in rows]
    if not options.no_breakdown:
        text, found = breakdown(GROUPS["step"][0])
        lines += ["", *text]
        records.append(found)
    report.publish(
        "train", report.header("cuda", hardware()), "\n".join(lines), records, options.save
    )
    return 0


def hardware() -> dict[str, object]:
    """What the numbers depend on."""
    torch = sys.modules.get("torch")
    return gpu_hardware() | ({} if torch is None else {"torch": torch.__version__})


def main() -> int:
    """The command line of bench/train.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())
