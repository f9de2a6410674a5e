"""What must hold of the figures of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longnet.bench.gpu_attention.table import Row

DENSE = "cuDNN, L 2048"


@dataclass
class Requirement:
    """A figure, None where it was not measured, and its bounds."""

    name: str
    figure: float | None
    relation: str  # ">=" or "<="
    target: float
    aim: float

    def holds(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure >= self.target if self.relation == ">=" else self.figure <= self.target


class Figures:
    """Figures of rows by group, name, step and field; None where there is none."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = {(row.group, row.entry.name): row for row in rows}

    def get(self, group: str, name: str, step: str, what: str) -> float | None:
        row = self.rows.get((group, name))
        found = row.steps.get(step) if row else None
        return getattr(found, what) if found and found.error is None else None

    def ratio(self, group: str, above: str, below: str, step: str, what: str) -> float | None:
        """One line's figure over another's."""
        a, b = (self.get(group, name, step, what) for name in (above, below))
        return a / b if a is not None and b else None


def requirements(rows: list[Row]) -> list[Requirement]:
    """All of them, those without figures too."""
    figures = Figures(rows)
    found = []

    def least(name: str, figure: float | None, target: float, aim: float) -> None:
        found.append(Requirement(name, figure, ">=", target, aim))

    def most(name: str, figure: float | None, target: float, aim: float) -> None:
        found.append(Requirement(name, figure, "<=", target, aim))

    for group, forward_aim, backward_aim in (("paper", 1.10, 1.05), ("powers", 1.0, 1.0)):
        for step, target, aim in (("forward", 0.85, forward_aim), ("backward", 0.80, backward_aim)):
            ratio = figures.ratio(group, "longnet", DENSE, step, "tflops")
            least(f"{group}: {step} TFLOP/s over dense cuDNN's at L 2048", ratio, target, aim)
    for group, step, target, aim in (
        ("pathology", "both", 2.3, 3.0),
        ("paper", "forward", 5.0, 7.0),
        ("paper", "both", 3.0, 4.0),
    ):
        name = "forward + backward" if step == "both" else step
        ratio = figures.ratio(group, "torchscale", "longnet", step, "ms")
        least(f"{group}: {name}, times faster than torchscale with cuDNN", ratio, target, aim)
    for dim in (64, 128):
        for step in ("forward", "backward"):
            ratio = figures.ratio("rates", f"D {dim}, r 16", f"D {dim}, r 1", step, "tflops")
            least(f"one level, D {dim}: {step} TFLOP/s at r 16 over r 1", ratio, 0.93, 0.98)
    for step in ("forward", "backward"):
        ratio = figures.ratio("lengths", "4M", "64K", step, "ns")
        most(f"{step} time a token at 4M tokens over 64K", ratio, 1.05, 1.02)
    extra = figures.get("paper", "longnet", "forward", "extra")
    most("paper: forward memory over that of inputs and outputs", extra, 0.05, 0.0)
    most("1M tokens: backward memory over float32 dq, dk, dv of a segment", copies(figures), 1, 1)
    for dim in (64, 128):
        names = f"longnet sm80, D {dim}", f"FlashAttention-2, D {dim}"
        ratio = figures.ratio("sm80", *names, "forward", "tflops")
        least(f"sm80, D {dim}: forward TFLOP/s over FlashAttention-2's, L 2048", ratio, 0.85, 1.0)
    return found


def copies(figures: Figures) -> float | None:
    """Memory beside inputs and outputs at 1M tokens in float32 copies of dq, dk and dv of all heads
    of the longest segment: about what is in flight at a time."""
    extra = figures.get("lengths", "1M", "backward", "extra_bytes")
    if extra is None:
        return None
    shape = figures.rows["lengths", "1M"].entry.shape
    return extra / (3 * 4 * max(shape.segment_lengths) * shape.heads * shape.dim)
