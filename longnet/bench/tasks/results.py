"""What has been measured: one JSON object a run in a file that grows, its table and figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from longnet.bench import report
from longnet.bench.figures import Lines, draw
from longnet.bench.records import Record, Records

FILE = "tasks.jsonl"
_TRAINED = [
    "run", "parameters", "steps", "tokens", "seconds", "tokens/s", "peak GB", "loss", "97 % after",
]  # fmt: skip
_SCORED = ["run", "tokens", "examples", "score %", "+-", "chance", "shortcut"]
_SECONDS = 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000  # on an axis
_ENDS = {
    "steps": "all steps made",
    "minutes": "its minutes were over",
    "solved": "the held-out examples were answered",
}


class Results(Records):
    """The runs that are done, of a folder's file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE, lambda r: (r["settings"]["name"], r["cells"][0]["score"]))

    @property
    def records(self) -> list[Record]:
        """Of each recipe and device the last one."""
        return list({(r["settings"]["name"], r["device"]): r for r in self.all}.values())

    def has(self, settings: Record) -> bool:
        """Whether a run with these settings is done."""
        wanted = json.loads(json.dumps(settings))
        return any(record["settings"] == wanted for record in self.all)


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


def draw_all(records: Sequence[Record], folder: Path) -> None:
    """Write tasks_length.png and tasks_learning.png; without matplotlib, a warning.

    Raises
    ------
    LongNetError
        One cannot be written.
    """
    scored = {_name(r): r for r in records if len(r["cells"]) > 1}
    learned = {_name(r): r for r in records if len(r["curve"]) > 1}
    if scored:
        _draw_scores(folder / "tasks_length.png", scored)
    if learned:
        _draw_learning(folder / "tasks_learning.png", learned)


def _draw_scores(path: Path, records: Mapping[str, Record]) -> None:
    """Score over the length of the examples."""
    lines, errors = {}, {}
    for name, record in records.items():
        lines[name] = [(cell["length"], 100 * cell["score"]) for cell in record["cells"]]
        errors[name] = [100 * cell["standard_error"] for cell in record["cells"]]
    lengths = [length for points in lines.values() for length, _ in points]
    first, last = math.ceil(math.log2(min(lengths))), math.floor(math.log2(max(lengths)))

    def style(name: str, _: Lines) -> dict[str, Any]:
        """A dot where the training was."""
        trained = records[name]["settings"]["length"]
        places = [i for i, (length, _) in enumerate(lines[name]) if length == trained]
        return {"marker": "o", "markersize": 6, "markevery": places}

    draw(
        path,
        {"dots: the length of the training": lines},
        x="tokens of an example",
        y="score, %",
        ticks={1 << k: f"{1 << k:,}" for k in range(first, last + 1)},
        errors=errors,
        bottom=0,
        style=style,
    )


def _draw_learning(path: Path, records: Mapping[str, Record]) -> None:
    """Score of the held-out examples over the time of the training."""
    lines = {
        name: [(look["seconds"], 100 * look["accuracy"]) for look in record["curve"]]
        for name, record in records.items()
    }
    longest = max(seconds for points in lines.values() for seconds, _ in points)
    draw(
        path,
        {"held-out examples, as long as those of the training": lines},
        x="seconds of training",
        y="score, %",
        ticks={n: f"{n}" for n in _SECONDS if n <= longest},
        bottom=0,
    )


def _name(record: Record) -> str:
    return record["settings"]["name"]
