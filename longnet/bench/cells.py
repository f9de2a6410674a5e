"""A notebook, as the script that is its pair, with the settings of a device: its cells one after
another, as Jupyter runs them. `python -m longnet.bench.cells SCRIPT DEVICE FOLDER` prints what
they print and show, and writes their figures to FOLDER."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from longnet.errors import DataError

_SETTING = re.compile(r'^DEVICE = "cpu"', re.MULTILINE)
_CELL = re.compile(r"^# %%.*$", re.MULTILINE)
_DPI = 80


def on_device(text: str, device: str, where: object) -> str:
    """The script with its line ``DEVICE = "cpu"`` saying another device.

    Raises
    ------
    DataError
        There is no such line, or more than one.
    """
    text, found = _SETTING.subn(f'DEVICE = "{device}"', text)
    if found != 1:
        raise DataError(f'{where}: found {found} lines DEVICE = "cpu", expected 1')
    return text


def cells(text: str) -> Iterator[str]:
    """The source of each cell, on the lines on which it stands in the script: empty ones are put
    before it. Cells of text are comments alone."""
    ends = [0, *(match.end() for match in _CELL.finditer(text)), len(text)]
    for begin, end in pairwise(ends):
        yield "\n" * text.count("\n", 0, begin) + text[begin:end]


def run(path: Path, device: str, figures: Path) -> None:
    """Run a script's cells.

    Parameters
    ----------
    path : Path
        A script of jupytext's format ``py:percent``.
    device : str
        What its `DEVICE` is to be.
    figures : Path
        A folder for its figures, as PNG: by the script's name and a number.
    """
    shown = _Shown(path.stem, figures)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(on_device(path.read_text(), device, path)):
        body = ast.parse(cell, path).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), path, "exec", dont_inherit=True), names)
        value = None
        if last is not None:
            value = eval(
                compile(ast.Expression(last.value), path, "eval", dont_inherit=True), names
            )
        shown.figures()
        if value is not None:
            shown.value(value)


class _Shown:
    """What a notebook shows beside what it prints."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder, self._count = name, folder, 0

    def figures(self) -> None:
        """Those that are open, which are closed."""
        import matplotlib.pyplot as plt

        for number in plt.get_fignums():
            plt.figure(number).savefig(self._next(), dpi=_DPI)
        plt.close("all")

    def value(self, value: object) -> None:
        """A cell's last one: a picture's bytes, or its text."""
        picture = getattr(value, "data", None)
        if isinstance(picture, bytes):
            self._next().write_bytes(picture)
        else:
            print(repr(value))

    def _next(self) -> Path:
        self._count += 1
        return self._folder / f"{self._name}_{self._count}.png"


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
