"""Table 2 of LongNet's paper in small: dense attention, the Sparse Transformer and LongNet, trained
at several lengths on equal text, and read at 2K, 8K and 32K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from longnet.bench import report
from longnet.bench.figures import draw
from longnet.bench.paper import runs
from longnet.bench.paper.cells import Cell, Scale
from longnet.bench.paper.orderings import PAPER, SURE, expected, of_paper, summary
from longnet.bench.paper.results import Record, nats, perplexity
from longnet.bench.paper.runs import TESTED
from longnet.bench.paper.style import style

CELLS = [
    Cell("dense", 2),
    *(Cell(model, k) for k in (8, 16, 32) for model in ("sparse", "longnet")),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of bench/table2.py; return the exit code."""
    measured = runs.command("table2", __doc__, CELLS, arguments)
    if not measured.records:
        return measured.code
    lines = [*describe(measured.scale, measured.records), "", *table(measured.records)]
    text = "\n".join([*lines, "", *compare(measured.records)])
    (measured.folder / "table2.txt").write_text(text + "\n")
    print(text, flush=True)
    ours = {name: points(r) for name, r in measured.records.items()}
    paper = {name: list(zip(TESTED, PAPER[name], strict=True)) for name in ours}
    draw(
        measured.folder / "table2.png",
        {"here, a byte": ours, "the paper, a token of The Stack": paper},
        x="length that is read",
        y="perplexity",
        ticks={k: f"{k}K" for k in TESTED},
        log_y=True,
        style=style,
    )
    return measured.code


def describe(scale: Scale, records: Mapping[str, Record]) -> list[str]:
    """What all runs have in common."""
    last = list(records.values())[-1]
    parameters = sorted({f"{r['parameters']:,}" for r in records.values()})
    hardware = last.get("gpu") or last["processor"]
    windows = len(nats(last, TESTED[0]))
    return [
        f"{hardware}, {last['date'][:10]}",
        f"{scale.num_layers} layers of {scale.embed_dim}, {scale.num_heads} heads, "
        f"{' and '.join(parameters)} parameters, xPos, bytes",
        f"{scale.steps:,} steps of {scale.step_tokens:,} bytes of the same {scale.tokens:,}; "
        f"1K is {scale.unit:,} bytes",
        "an update has the same text in all runs"
        if scale.same_batches
        else "each run shuffles sequences of its own length",
        f"scored: {windows} windows of {scale.longest:,} bytes, at every length",
    ]


def table(records: Mapping[str, Record]) -> list[str]:
    """A line a run: perplexities beside the paper's, arithmetic, speed."""
    lengths = [f"{k}K" for k in TESTED]
    lines = [["perplexity at", *lengths, "paper", *lengths, "attention Mop/byte", "bytes/s"]]
    for name, record in records.items():
        ours = [f"{perplexity(nats(record, k)):.3f}" for k in TESTED]
        paper = [f"{value:.2f}" for value in PAPER[name]]
        length = int(name.partition("-")[2][:-1]) * record["settings"]["unit"]
        flops = record["attention_flops"] / length / 1e6
        speed = f"{record['tokens_per_second']:,.0f}"
        lines.append([name, *ours, "", *paper, f"{flops:.3g}", speed])
    return report.aligned(lines, left=1)


def compare(records: Mapping[str, Record]) -> list[str]:
    """Which orderings agree with the paper's, counted and, where they do not, named."""
    found = list(of_paper(records))
    lines = report.aligned(summary(found), left=1)
    lines += [f"agree, disagree: by more than {SURE:g} standard errors over the windows", ""]
    lines += [o.line() for o in found if o.verdict == "disagrees"]
    must = [o.line() for o in expected(records)]
    return [*lines, "", "what must hold", *must] if must else lines


def points(record: Record) -> list[tuple[float, float]]:
    """Perplexity by the length that is read."""
    return [(k, perplexity(nats(record, k))) for k in TESTED]
