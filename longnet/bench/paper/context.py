"""Perplexity against the length of training, over its operations, for dense attention and LongNet
(figure 6 of LongNet's paper), and against the length of the prompt (figure 7b)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from longnet.bench import report
from longnet.bench.figures import draw
from longnet.bench.paper import runs
from longnet.bench.paper.cells import Cell, Scale
from longnet.bench.paper.orderings import Ordering, ordering
from longnet.bench.paper.results import Record, nats, perplexity
from longnet.bench.paper.runs import PROMPTS
from longnet.bench.paper.style import style
from longnet.bench.paper.table2 import describe

LENGTHS = 1, 2, 4, 8, 16, 32
MODELS = "dense", "longnet"
CELLS = [Cell(model, k) for k in LENGTHS for model in MODELS]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of bench/context.py; return the exit code."""
    measured = runs.command("context", __doc__, CELLS, arguments)
    records, folder = measured.records, measured.folder
    if not records:
        return measured.code
    lines = [*describe(measured.scale, records), "", *trainings(measured.scale, records)]
    read = {name: record for name, record in records.items() if record["prompt_nats"]}
    if read:
        lines += ["", *prompts(measured.scale, read)]
    lines += ["", *(o.line() for o in orderings(records))]
    text = "\n".join(lines)
    (folder / "context.txt").write_text(text + "\n")
    print(text, flush=True)
    draw_trainings(folder / "context_training.png", measured.scale, records)
    if read:
        curves = {n: [(k, perplexity(after(r, k))) for k in PROMPTS] for n, r in read.items()}
        draw(
            folder / "context_prompt.png",
            {f"the same {measured.scale.scored} bytes at the end of what is read": curves},
            x="length that is read",
            y="perplexity a byte",
            ticks={k: f"{k}K" for k in PROMPTS},
            style=style,
        )
    return measured.code


def draw_trainings(path: Path, scale: Scale, records: Mapping[str, Record]) -> None:
    """Perplexity at the length of the training, over what the training took."""
    runs_of = {model: of_model(records, model) for model in MODELS if of_model(records, model)}
    lines = {
        model: [(operations(scale, records[n]), perplexity(losses(n, records))) for n in names]
        for model, names in runs_of.items()
    }
    draw(
        path,
        {"read at the length of the training": lines},
        x="operations of the training",
        y="perplexity a byte",
        marks={model: [n.partition("-")[2] for n in names] for model, names in runs_of.items()},
        style=style,
    )


def of_model(records: Mapping[str, Record], model: str) -> list[str]:
    """Names of a model's runs, by the length of the training."""
    return [cell.name for cell in CELLS if cell.model == model and cell.name in records]


def operations(scale: Scale, record: Record) -> float:
    """Of the whole training."""
    return record["flops_per_token"] * scale.tokens


def losses(name: str, records: Mapping[str, Record]) -> np.ndarray:
    """Losses (W,) at the length of the training."""
    return nats(records[name], int(name.partition("-")[2][:-1]))


def after(record: Record, thousands: int) -> np.ndarray:
    """Losses (W,) of the scored tokens when so many units are read."""
    return np.array(record["prompt_nats"][str(thousands)])


def trainings(scale: Scale, records: Mapping[str, Record]) -> list[str]:
    """A line a run: what its training took, and how well it reads its own length."""
    lines = [["trained and read at", "Pop", "perplexity", "bytes/s"]]
    for name, record in records.items():
        flops = operations(scale, record) / 1e15
        speed = f"{record['tokens_per_second']:,.0f}"
        lines.append([name, f"{flops:.3g}", f"{perplexity(losses(name, records)):.3f}", speed])
    return report.aligned(lines, left=1)


def prompts(scale: Scale, records: Mapping[str, Record]) -> list[str]:
    """Perplexities of the same bytes after prompts of several lengths."""
    lines = [[f"last {scale.scored} bytes of", *(f"{k}K" for k in PROMPTS)]]
    for name, record in records.items():
        lines.append([name, *(f"{perplexity(after(record, k)):.3f}" for k in PROMPTS)])
    return report.aligned(lines, left=1)


def orderings(records: Mapping[str, Record]) -> Iterator[Ordering]:
    """What the paper's figures show: longer training and longer prompts lower the perplexity."""
    for model in MODELS:
        for short, long in pairwise(of_model(records, model)):
            yield ordering(
                f"{long} below {short}", "", losses(long, records), losses(short, records)
            )
    for name, record in records.items():
        for low, high in pairwise(PROMPTS if record["prompt_nats"] else ()):
            text = f"{name} reading {high}K below {low}K"
            yield ordering(text, "", after(record, high), after(record, low))
