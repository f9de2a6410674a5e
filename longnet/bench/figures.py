"""Pictures of measurements: lines of points, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from longnet.errors import LongNetError

Points = Sequence[tuple[float, float]]
Lines = Mapping[str, Points]
Style = Callable[[str, Lines], dict[str, Any]]


def draw(
    path: Path,
    panels: Mapping[str, Lines],
    *,
    x: str,
    y: str,
    ticks: Mapping[float, str] | None = None,
    marks: Mapping[str, Sequence[str]] | None = None,
    errors: Mapping[str, Sequence[float]] | None = None,
    log_y: bool = False,
    bottom: float | None = None,
    style: Style | None = None,
) -> None:
    """Draw lines of points side by side, a panel for each title.

    Parameters
    ----------
    path : Path
        The PNG.
    panels : mapping of mapping
        By title: points by the name of a line.
    x, y : str
        What the axes show; x is logarithmic.
    ticks : mapping of str, optional
        Labels of places on the x axis.
    marks : mapping of sequence of str, optional
        By name of the line, what stands beside each of its points.
    errors : mapping of sequence of float, optional
        By name of the line, how far a bar reaches up and down from each of its points.
    log_y : bool
    bottom : float, optional
        Where the y axis begins.
    style : function, optional
        ``style(name, lines)`` gives a line's options, as matplotlib's ``errorbar`` takes them,
        among all lines of its panel.

    Raises
    ------
    LongNetError
        It cannot be written. That matplotlib is not installed is a warning.
    """
    try:
        # Without pyplot: no window system, and no state of the caller's is touched.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
    except ImportError:
        warnings.warn(f"{path}: not drawn: found no matplotlib", stacklevel=2)
        return
    figure = Figure(figsize=(1.5 + 4.7 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for i, (title, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), i)
        axes.set_title(title, fontsize=10)
        for name, points in lines.items():
            options = {"marker": "o", "markersize": 4} if style is None else style(name, lines)
            bars = None if errors is None else errors[name]
            places, heights = zip(*points, strict=True)
            axes.errorbar(places, heights, bars, capsize=2, label=name, **options)
            beside = [""] * len(points) if marks is None else marks[name]
            for point, mark in zip(points, beside, strict=True):
                axes.annotate(mark, point, (4, 4), textcoords="offset points", fontsize=8)
        axes.set_xscale("log", base=2 if ticks else 10)
        if log_y:
            every = [height for points in lines.values() for _, height in points]
            decades = max(every) > 10 * min(every)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if decades else MaxNLocator(6))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        if ticks:
            axes.set_xticks(list(ticks), list(ticks.values()))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise LongNetError(f"{path}: cannot be written: {error.strerror}") from error
