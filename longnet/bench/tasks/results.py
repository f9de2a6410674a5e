"""What has been measured: one JSON object a run in a file that grows, its table and figures."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from longnet.bench import report
from longnet.errors import DataError, LongNetError

Record = dict[str, Any]
FILE = "tasks.jsonl"
_TRAINED = [
    "run", "parameters", "steps", "tokens", "seconds", "tokens/s", "peak GB", "loss", "97 % after",
]  # fmt: skip
_SCORED = ["run", "tokens", "examples", "score %", "+-", "chance", "shortcut"]
_ENDS = {
    "steps": "all steps made",
    "minutes": "its minutes were over",
    "solved": "the held-out examples were answered",
}


class Results:
    """The runs that are done.

    Parameters
    ----------
    folder : Path
        Where the file lies, or will.

    Attributes
    ----------
    records : list of Record
        Of each recipe and device the last one, in the order in which they first came.

    Raises
    ------
    DataError
        A line of the file is none of ours.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._all: list[Record] = []
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                record["settings"]["name"], record["cells"][0]["score"]
            except (ValueError, LookupError, TypeError) as error:
                raise DataError(f"{self.path}: line {number}: expected a run's record") from error
            self._all.append(record)

    @property
    def records(self) -> list[Record]:
        """Of each recipe and device the last one."""
        return list({(r["settings"]["name"], r["device"]): r for r in self._all}.values())

    def has(self, settings: Record) -> bool:
        """Whether a run with these settings is done."""
        wanted = json.loads(json.dumps(settings))
        return any(record["settings"] == wanted for record in self._all)

    def append(self, record: Record) -> None:
        """Keep one more record, on the disk too."""
        line = json.dumps(record, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
        self._all.append(json.loads(line))


def table(records: Sequence[Record]) -> list[str]:
    """Where and how the runs were made, how they were trained, what they score."""
    places = {
        f"{r.get('gpu') or r['processor']}, {r['date'][:10]}: {r['command']}": None for r in records
    }
    shortcuts = {r["cells"][0]["task"]: r["cells"][0]["shortcut_name"] for r in records}
    return [
        *places,
        "",
        *report.aligned([_TRAINED, *map(_trained, records)], left=1),
        "",
        *report.aligned([_SCORED, *(line for r in records for line in _scored(r))], left=1),
        "",
        *(f"{r['settings']['name']} ended: {_ENDS[r['ended']]}" for r in records),
        *(f"shortcut of {task}: {name}" for task, name in shortcuts.items()),
    ]


def _trained(record: Record) -> list[str]:
    return [
        record["settings"]["name"],
        f"{record['parameters']:,}",
        f"{record['steps']:,}",
        f"{record['tokens']:,}",
        f"{record['seconds']:.0f}",
        f"{record['tokens_per_second']:,.0f}",
        f"{record['peak_gb']:.2f}",
        f"{record['loss']:.3f}",
        _solved_after(record),
    ]


def _scored(record: Record) -> Iterator[list[str]]:
    for cell in record["cells"]:
        percent = [cell[key] for key in ("score", "standard_error", "chance", "shortcut")]
        yield [
            record["settings"]["name"],
            f"{cell['length']:,}",
            f"{cell['examples']:,}",
            *(f"{100 * value:.1f}" for value in percent),
        ]


def _solved_after(record: Record) -> str:
    """Seconds of training to the first look at which 97 % of the held-out examples were right."""
    seconds = [look["seconds"] for look in record["curve"] if look["accuracy"] > 0.97]
    return f"{seconds[0]:.0f} s" if seconds else "-"


def draw(records: Sequence[Record], folder: Path) -> None:
    """Write tasks_length.png and tasks_learning.png; without matplotlib, a warning.

    Raises
    ------
    LongNetError
        One cannot be written.
    """
    lengths = {
        _label(r): [(c["length"], c["score"], c["standard_error"]) for c in r["cells"]]
        for r in records
        if len(r["cells"]) > 1
    }
    learning = {
        _label(r): [(look["seconds"], look["accuracy"], 0.0) for look in r["curve"]]
        for r in records
        if len(r["curve"]) > 1
    }
    marks = {_label(r): r["settings"]["length"] for r in records}
    _draw(folder / "tasks_length.png", lengths, "tokens of an example", marks)
    _draw(folder / "tasks_learning.png", learning, "seconds of training", None)


def _label(record: Record) -> str:
    return record["settings"]["name"]


def _draw(
    path: Path,
    lines: dict[str, list[tuple[float, float, float]]],
    x: str,
    marks: dict[str, int] | None,
) -> None:
    if not lines:
        return
    try:
        # Without pyplot: no window system, and no state of the caller's is touched.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
    except ImportError:
        warnings.warn(f"{path}: not drawn: found no matplotlib", stacklevel=2)
        return
    figure = Figure(figsize=(8.2, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in lines.items():
        at, scores, errors = zip(*points, strict=True)
        drawn = axes.errorbar(at, scores, errors, marker="o", ms=3, lw=1.2, capsize=2, label=name)
        if marks is not None:  # the length of the training stands out
            trained = [point for point in points if point[0] == marks[name]]
            for point in trained:
                axes.plot(*point[:2], marker="o", ms=8, color=drawn[0].get_color())
    if marks is not None:
        every = sorted({point[0] for points in lines.values() for point in points})
        axes.set_xscale("log", base=2)
        axes.set_xticks(every, [f"{length:,}" for length in every], rotation=45)
        axes.minorticks_off()
        axes.set_title("large: the length of the training", fontsize=9)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(x)
    axes.set_ylabel("score")
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise LongNetError(f"{path}: cannot be written: {error.strerror}") from error
