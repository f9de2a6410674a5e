"""The figure of what each query of a dilated attention sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from longnet import _core

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(attention: _core.DilatedAttention, count: np.ndarray, head: int, ax: Axes | None) -> Axes:
    """Draw `count` (N, N), on how many levels each query sees each key, and the segments.

    Parameters
    ----------
    attention : DilatedAttention
    count : ndarray (N, N)
        `DilatedAttention.visible`.
    head : int
        For the title.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    N = len(count)
    try:
        import matplotlib.pyplot as plt
        from matplotlib.collections import LineCollection
        from matplotlib.colors import BoundaryNorm, ListedColormap
    except ImportError as error:
        raise ImportError(
            "DilatedAttention.plot needs matplotlib: pip install matplotlib"
        ) from error

    levels = len(attention.segment_lengths)
    if ax is None:
        side = min(5.0 + N / 128, 9.0)  # inches: a key is never less than a pixel up to N = 700
        ax = plt.figure(figsize=(side + 0.8, side), layout="constrained").add_subplot()
    shades = plt.get_cmap("viridis")(np.linspace(0.66, 0.0, levels))
    image = ax.imshow(
        count,
        cmap=ListedColormap([(0.965, 0.965, 0.955, 1.0), *shades]),
        norm=BoundaryNorm(np.arange(levels + 2) - 0.5, levels + 1),
        interpolation="nearest" if N <= 700 else "antialiased",
        interpolation_stage="rgba",
    )
    for w in sorted({min(w, N) for w in attention.segment_lengths}):
        corners = [(a - 0.5, min(a + w, N) - 0.5) for a in range(0, N, w)]
        squares = [[(a, a), (e, a), (e, e), (a, e), (a, a)] for a, e in corners]
        ax.add_collection(LineCollection(squares, color="0.4", lw=0.7, clip_on=False))
    bar = ax.figure.colorbar(image, ax=ax, ticks=range(levels + 1), shrink=0.6, pad=0.03)
    bar.set_label("levels on which the query sees the key")
    bar.ax.tick_params(length=0)
    pairs = zip(attention.segment_lengths, attention.dilation_rates, strict=True)
    ax.set_title("w/r " + ", ".join(f"{w}/{r}" for w, r in pairs) + f": head {head}")
    ax.set_xlabel("key")
    ax.set_ylabel("query")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax
