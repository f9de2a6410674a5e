"""The rows, and the table made of them."""

from dataclasses import asdict, dataclass, field
from typing import Any

from longnet.bench.gpu_attention.requirements import Requirement
from longnet.bench.gpu_attention.shapes import Entry
from longnet.bench.report import aligned

FLOPS = {"forward": 4, "backward": 10, "both": 14}  # a pair and a dimension of the heads


@dataclass
class Step:
    """One step of one line; `error` says why it has no figures."""

    ms: float | None = None
    tflops: float | None = None
    ns: float | None = None  # a token of one head
    extra_bytes: int | None = None  # the most held beside inputs and outputs
    extra: float | None = None  # the same as a share of them
    repeats: int = 0
    error: str | None = None

    @classmethod
    def failed(cls, error: Exception) -> "Step":
        """The first line of what it says, after its kind."""
        text = (str(error).strip() or "no message").splitlines()[0]
        return cls(error=f"{type(error).__name__}: {text}")

    def cells(self) -> list[str]:
        if self.error is not None:
            return [word(self.error), "", ""]
        if self.ms is None or self.tflops is None or self.extra is None:
            return ["", "", ""]
        return [f"{self.ms:.3f}", f"{self.tflops:.0f}", f"{self.extra:.1%}"]


@dataclass
class Row:
    """One line of the table."""

    group: str
    entry: Entry
    pairs: int
    steps: dict[str, Step] = field(default_factory=dict)

    def count(self) -> None:
        """What follows from the times."""
        shape = self.entry.shape
        for name, step in self.steps.items():
            if step.ms is not None:
                step.tflops = FLOPS[name] * shape.dim * self.pairs / step.ms * 1e-9
                step.ns = step.ms * 1e6 / (shape.batch * shape.tokens * shape.heads)

    def record(self) -> dict[str, Any]:
        """Everything, for JSON."""
        entry = asdict(self.entry)
        shape = entry.pop("shape")
        steps = {name: asdict(step) for name, step in self.steps.items()}
        return {"group": self.group, **entry, **shape, "pairs": self.pairs, "steps": steps}


def word(error: str) -> str:
    """A cell for it; the whole of it stands below the table."""
    kind = error.partition(":")[0]
    if "OutOfMemory" in kind or kind == "MemoryError":
        return "memory"
    return "absent" if kind in ("ImportError", "ModuleNotFoundError") else "error"


def table(rows: list[Row], found: list[Requirement]) -> str:
    """All groups under one another, what they lack, and what must hold."""
    lines = [
        ["", "B x N", "H", "D", *(h for name in FLOPS for h in (f"{name} ms", "TFLOP/s", "extra"))]
    ]
    for row in rows:
        shape = row.entry.shape
        size = f"{shape.batch} x {shape.tokens:,}"
        cells = [c for name in FLOPS for c in row.steps.get(name, Step()).cells()]
        lines.append([row.entry.name, size, str(shape.heads), str(shape.dim), *cells])
    text = aligned(lines, left=1)
    output = [text[0]]
    for i, (row, line) in enumerate(zip(rows, text[1:], strict=True)):
        if i == 0 or rows[i - 1].group != row.group:
            output += ["", title(row)]
        output.append(line)
    output += ["", *problems(rows)]
    return "\n".join([*output, *requirement_lines(found)])


def title(row: Row) -> str:
    """The name of a group, and its levels where all lines but dense ones have the same."""
    if row.group in ("rates", "sm80"):
        return row.group
    shape = row.entry.shape
    w, r = (" ".join(map(str, x)) for x in (shape.segment_lengths, shape.dilation_rates))
    return f"{row.group}: w {w}, r {r}, {'causal' if shape.causal else 'bidirectional'}"


def problems(rows: list[Row]) -> list[str]:
    """Every error once."""
    lines: dict[str, None] = {}
    for row in rows:
        for name, step in row.steps.items():
            if step.error is not None:
                lines[f"{row.group}, {row.entry.name}, {name}: {step.error}"] = None
    return [*lines, ""] if lines else []


def requirement_lines(found: list[Requirement]) -> list[str]:
    lines = [["what must hold", "figure", "expected", "aim", ""]]
    for x in found:
        figure = "" if x.figure is None else f"{x.figure:.3f}"
        verdict = {None: "not measured", True: "holds", False: "falls short"}[x.holds()]
        lines.append([x.name, figure, f"{x.relation} {x.target:g}", f"{x.aim:g}", verdict])
    return aligned(lines, left=1)
