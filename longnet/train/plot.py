"""The loss curve of a run as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longnet.errors import LongNetError


def plot_loss(
    records: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    baselines: Mapping[str, float] | None = None,
) -> None:
    """Draw training and validation loss over the steps.

    In bits per byte where the records have them, else in nats per token.

    Parameters
    ----------
    records : sequence of mapping
        As `read_metrics` gives them.
    path : path
        The PNG; one that is there is replaced when the new one is complete.
    baselines : mapping of float, optional
        What to compare with: horizontal lines by name, in the unit of the curves.

    Raises
    ------
    LongNetError
        The file cannot be written, or matplotlib is not installed.
    """
    try:
        # Without pyplot: no window system, and no state of the caller's is touched.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LongNetError(
            f"{path}: drawing it needs matplotlib: pip install matplotlib"
        ) from error
    key = "bits_per_byte" if any("bits_per_byte" in r for r in records) else "loss"
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for prefix, style in (("", {"linewidth": 0.9}), ("validation_", {"marker": "o", "ms": 4})):
        points = [(r["step"], r[prefix + key]) for r in records if prefix + key in r]
        if points:
            label = "validation" if prefix else "training"
            axes.plot(*zip(*points, strict=True), label=label, **style)
    for name, level in (baselines or {}).items():
        axes.axhline(level, color="0.6", linestyle="--", linewidth=0.9)
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set_xlabel("step")
    axes.set_ylabel("bits per byte" if key == "bits_per_byte" else "nats per token")
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)

    path = Path(path)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        try:
            figure.savefig(temporary, format="png", dpi=150)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise LongNetError(f"{path}: cannot be written: {error.strerror}") from error
