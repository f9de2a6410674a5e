"""The figures of an evaluation: what people expect to see of scores over lengths and depths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longnet.errors import LongNetError
from longnet.evaluate.tasks import Cell

_SHEET_COLUMNS = 6


def draw_cells(
    cells: Sequence[Cell], folder: str | os.PathLike[str], trained_length: int | None = None
) -> list[Path]:
    """Draw what the cells allow.

    ``depth_length.png``, a heat map, where there are several depths; ``position.png``, accuracy
    by where the evidence lies, where that is known; ``length.png``, accuracy by length, where
    there are several.

    Parameters
    ----------
    cells : sequence of Cell
        Of one task.
    folder : path
        Where the pictures go.
    trained_length : int, optional
        Tokens of the training's sequences, which is marked.

    Returns
    -------
    list of Path
        The pictures.

    Raises
    ------
    LongNetError
        A picture cannot be written, or matplotlib is not installed.
    """
    folder, drawn = Path(folder), []
    lengths = sorted({cell.length for cell in cells})
    depths = sorted({cell.depth for cell in cells if cell.depth is not None})
    if len(depths) > 1:
        drawn.append(_draw_heat_map(cells, lengths, depths, folder / "depth_length.png"))
    if len(depths) > 1 or any(len(cell.bins) > 1 for cell in cells):
        drawn.append(_draw_positions(cells, lengths, folder / "position.png"))
    if len(lengths) > 1:
        drawn.append(_draw_lengths(cells, lengths, trained_length, folder / "length.png"))
    return drawn


def draw_contexts(
    records: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    trained_length: int | None = None,
) -> Path:
    """Draw how good a model is on one text by the length of its context.

    Parameters
    ----------
    records : sequence of mapping
        As `longnet.evaluate.text.evaluate_contexts` gives them.
    path : path
        The PNG.
    trained_length : int, optional
        Tokens of the training's sequences, which is marked.

    Raises
    ------
    LongNetError
        It cannot be written, or matplotlib is not installed.
    """
    in_bytes = records[0]["bits_per_byte"] is not None
    lengths = [record["length"] for record in records]
    values = [record["bits_per_byte" if in_bytes else "loss"] for record in records]
    figure = _figure(path, 6.4, 4)
    axes = figure.add_subplot()
    axes.plot(*zip(*sorted(zip(lengths, values, strict=True)), strict=True), marker="o", ms=4)
    if trained_length is not None:
        axes.axvline(trained_length, color="0.7", linewidth=1, label="length of the training")
        axes.legend(frameon=False, fontsize=8)
    _mark_lengths(axes, lengths)
    axes.set_xlabel("tokens of context at most")
    axes.set_ylabel("bits per byte" if in_bytes else "nats per token")
    axes.set_title(f"{records[0]['tokens']:,} tokens of text", fontsize=9)
    return _save(figure, path)


def draw_sheet(
    images: Sequence[np.ndarray], titles: Sequence[str], path: str | os.PathLike[str]
) -> Path:
    """Draw grey images in rows of six.

    Parameters
    ----------
    images : sequence of numpy.ndarray, (height, width) uint8
    titles : sequence of str
        One above each.
    path : path
        The PNG.

    Raises
    ------
    LongNetError
        It cannot be written, or matplotlib is not installed.
    """
    rows = -(-len(images) // _SHEET_COLUMNS)
    figure = _figure(path, 1.7 * _SHEET_COLUMNS, 1.9 * rows)
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes = figure.add_subplot(rows, _SHEET_COLUMNS, i + 1)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    return _save(figure, path)


def _draw_heat_map(
    cells: Sequence[Cell], lengths: list[int], depths: list[float], path: Path
) -> Path:
    scores = np.full((len(depths), len(lengths)), np.nan)
    for cell in cells:
        if cell.depth is not None:
            scores[depths.index(cell.depth), lengths.index(cell.length)] = cell.score
    figure = _figure(path, 2.2 + 0.62 * len(lengths), 1.8 + 0.42 * len(depths))
    axes = figure.add_subplot()
    image = axes.imshow(scores, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45)
    axes.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
    for row, column in zip(*np.nonzero(~np.isnan(scores)), strict=True):
        text = f"{100 * scores[row, column]:.0f}"
        axes.annotate(text, (column, row), ha="center", va="center", fontsize=8)
    axes.set_xlabel("tokens")
    axes.set_ylabel("depth of the evidence")
    axes.set_title(_title(cells), fontsize=9)
    figure.colorbar(image, label="score")
    return _save(figure, path)


def _draw_positions(cells: Sequence[Cell], lengths: list[int], path: Path) -> Path:
    figure = _figure(path, 7.6, 4)
    from matplotlib import colormaps

    axes = figure.add_subplot()
    for i, length in enumerate(lengths):
        of_length = [cell for cell in cells if cell.length == length]
        points = [(c.depth, c.score) for c in of_length if c.depth is not None]
        points += [((b.low + b.high) / 2, b.score) for c in of_length for b in c.bins]
        if points:
            shade = colormaps["viridis"](0.9 * i / len(lengths))
            style = {"marker": "o", "ms": 4, "color": shade, "label": f"{length:,} tokens"}
            axes.plot(*zip(*sorted(points), strict=True), **style)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the tokens before the evidence")
    _finish(axes, cells)
    return _save(figure, path)


def _draw_lengths(
    cells: Sequence[Cell], lengths: list[int], trained_length: int | None, path: Path
) -> Path:
    of_length = [[cell for cell in cells if cell.length == length] for length in lengths]
    scores = [np.mean([cell.score for cell in some]) for some in of_length]
    # Cells of one length are independent: the error of their mean.
    errors = [np.sqrt(sum(c.standard_error**2 for c in some)) / len(some) for some in of_length]
    shortcuts = [np.mean([cell.shortcut for cell in some]) for some in of_length]
    figure = _figure(path, 8.2, 4)
    axes = figure.add_subplot()
    axes.errorbar(lengths, scores, errors, marker="o", ms=4, capsize=3, label="model")
    style = {"color": "0.45", "linestyle": "--", "linewidth": 1}
    axes.plot(lengths, shortcuts, label=cells[0].shortcut_name, **style)
    if trained_length is not None:
        axes.axvline(trained_length, color="0.7", linewidth=1, label="length of the training")
    _mark_lengths(axes, lengths)
    axes.set_xlabel("tokens")
    _finish(axes, cells)
    return _save(figure, path)


def _finish(axes: Any, cells: Sequence[Cell]) -> None:
    axes.axhline(cells[0].chance, color="0.45", linestyle=":", linewidth=1, label="chance")
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("score")
    axes.set_title(_title(cells), fontsize=9)
    _tidy(axes)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _mark_lengths(axes: Any, lengths: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    _tidy(axes)


def _tidy(axes: Any) -> None:
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _title(cells: Sequence[Cell]) -> str:
    counts = sorted({cell.examples for cell in cells})
    return f"{cells[0].task}, {counts[0]} examples a {'cell' if len(cells) > 1 else 'score'}"


def _figure(path: str | os.PathLike[str], width: float, height: float) -> Any:
    try:
        # Without pyplot: no window system, and no state of the caller's is touched.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise LongNetError(
            f"{path}: drawing it needs matplotlib: pip install matplotlib"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise LongNetError(f"{path}: cannot be written: {error.strerror}") from error
    return path
