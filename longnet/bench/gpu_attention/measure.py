"""Groups of runs on a GPU: measured, printed and saved as one table."""

import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from longnet.bench.devices import gpu_hardware
from longnet.bench.gpu_attention.contenders import IMPLEMENTATIONS
from longnet.bench.gpu_attention.requirements import requirements
from longnet.bench.gpu_attention.shapes import GROUPS, Entry
from longnet.bench.gpu_attention.table import Row, table
from longnet.bench.gpu_attention.timing import Run, queue, release
from longnet.bench.report import header, publish


def run(repeats: int, names: list[str], folder: str | None) -> int:
    """Measure these groups, print the table, and save it where asked."""
    rows = []
    for name in names:
        group = [row for entries in GROUPS[name] for row in rows_of(name, entries, repeats)]
        if name == "lengths":  # in the order of their lengths rather than of the runs
            group.sort(key=lambda row: row.entry.shape.tokens)
        rows += group
    found = requirements(rows)
    records = [row.record() for row in rows] + [
        {"requirement": x.name, **asdict(x), "holds": x.holds()} for x in found
    ]
    publish("attention", header("cuda", hardware()), table(rows, found), records, folder)
    return 0


def rows_of(group: str, entries: list[Entry], repeats: int) -> list[Row]:
    """One run, after which nothing of it is held."""
    print(f"{group}: {', '.join(entry.name for entry in entries)}", file=sys.stderr, flush=True)
    with queue():
        makers = [(partial(IMPLEMENTATIONS[x.implementation], x.shape), x.steps) for x in entries]
        results = Run(makers).measure(repeats)
    with suppress(Exception):  # of a device that has failed for good: its rows say so
        release()
    rows = []
    for entry, steps in zip(entries, results, strict=True):
        rows.append(Row(group, entry, entry.shape.pairs(), steps))
        rows[-1].count()
    return rows


def hardware() -> dict[str, Any]:
    """What the numbers depend on."""
    return gpu_hardware() | {
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "cudnn": torch.backends.cudnn.version(),
        "torchscale": "with cuDNN's kernels" if find_spec("torchscale") else "not importable",
    }
