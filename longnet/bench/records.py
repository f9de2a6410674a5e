"""Runs that are done: a JSON object a line, in a file that only grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longnet.errors import DataError

Record = dict[str, Any]


class Records:
    """The records of a file, which need not be there yet.

    Parameters
    ----------
    path : Path
    check : function
        Looks up in a record what ours have; a `LookupError` or `TypeError` refuses it.

    Attributes
    ----------
    path : Path
    all : list of Record
        In their order.

    Raises
    ------
    DataError
        A line of the file is none of ours.
    """

    def __init__(self, path: Path, check: Callable[[Record], object]) -> None:
        self.path = path
        self.all: list[Record] = []
        lines = path.read_text().splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                check(record)
            except (ValueError, LookupError, TypeError) as error:
                raise DataError(f"{path}: line {number}: expected a run's record") from error
            self.all.append(record)

    def append(self, record: Record) -> None:
        """Keep one more record, on the disk too."""
        line = json.dumps(record, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
        self.all.append(json.loads(line))
