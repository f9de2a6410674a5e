"""What has been measured so far."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from longnet.bench.paper.cells import Cell
from longnet.bench.records import Record, Records

FILE = "paper_runs.jsonl"


class Results(Records):
    """The runs that are done, of a folder's file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE, lambda r: (r["cell"], r["settings"], r["nats"]))

    def find(self, cell: Cell, settings: Record) -> Record | None:
        """The last record of a run with these settings."""
        found = [r for r in self.all if (r["cell"], r["settings"]) == (cell.name, settings)]
        return found[-1] if found else None


def nats(record: Record, thousands: int) -> np.ndarray:
    """Losses (W,) of the windows, read in pieces of so many units."""
    return np.array(record["nats"][str(thousands)])


def perplexity(losses: np.ndarray) -> float:
    """Of text with these losses, in windows of the same size."""
    return math.exp(losses.mean())
