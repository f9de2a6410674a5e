"""What has been measured so far: one JSON object a run in a file that only grows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from longnet.bench.paper.cells import Cell
from longnet.errors import DataError

Record = dict[str, Any]
FILE = "paper_runs.jsonl"


class Results:
    """The runs that are done.

    Parameters
    ----------
    folder : Path
        Where the file lies, or will.

    Raises
    ------
    DataError
        A line of the file is none of ours.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._records: list[Record] = []
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                record["cell"], record["settings"], record["nats"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path}: line {number}: expected a run's record") from error
            self._records.append(record)

    def find(self, cell: Cell, settings: Record) -> Record | None:
        """The last record of a run with these settings."""
        found = [r for r in self._records if (r["cell"], r["settings"]) == (cell.name, settings)]
        return found[-1] if found else None

    def append(self, record: Record) -> None:
        """Keep one more record, on the disk too."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        self._records.append(record)


def nats(record: Record, thousands: int) -> np.ndarray:
    """Losses (W,) of the windows, read in pieces of so many units."""
    return np.array(record["nats"][str(thousands)])


def perplexity(losses: np.ndarray) -> float:
    """Of text with these losses, in windows of the same size."""
    return math.exp(losses.mean())
