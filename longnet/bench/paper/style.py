"""How the models of the comparisons look in pictures."""

from __future__ import annotations

from typing import Any

from longnet.bench.figures import Lines

_MARKS = {"dense": ("0.35", "s"), "sparse": ("tab:orange", "^"), "longnet": ("tab:blue", "o")}
_STYLES = ("-", "--", ":")  # from the longest training on


def style(name: str, lines: Lines) -> dict[str, Any]:
    """A model's colour; of its runs, such as ``longnet-32k``, the one with the longest training is
    drawn through."""
    model = name.partition("-")[0]
    runs = [other for other in lines if other.partition("-")[0] == model]
    lengths = sorted(runs, key=lambda run: int("0" + "".join(filter(str.isdigit, run))))
    color, marker = _MARKS[model]
    line = _STYLES[(len(runs) - 1 - lengths.index(name)) % len(_STYLES)]
    return {"color": color, "marker": marker, "markersize": 4, "linestyle": line}
