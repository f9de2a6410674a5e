"""Files of a user: what is missing or of another form is told in one line."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from longnet.errors import DataError

Location = str | os.PathLike[str]

_KINDS = {str: "a string", int: "an integer", list: "a list"}


def open_text(path: Location, expected: str) -> TextIO:
    """Open a file of UTF-8 text, its line ends as they are.

    Raises
    ------
    DataError
        It cannot be opened; the message says what was `expected`.
    """
    try:
        return open(path, encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}, expected {expected}") from error


def read_text(path: Location, expected: str) -> str:
    """The whole text of a file; bytes that are not UTF-8 become U+FFFD.

    Raises
    ------
    DataError
        As `open_text`.
    """
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}, expected {expected}") from error


def need_folder(path: Location, expected: str) -> Path:
    """The path, if it is a folder.

    Raises
    ------
    DataError
        It is none; the message says what was `expected`.
    """
    path = Path(path)
    if not path.is_dir():
        found = "a file" if path.exists() else "no such folder"
        raise DataError(f"{path}: {found}, expected {expected}")
    return path


def json_lines(
    path: Location, kinds: Mapping[str, type], expected: str
) -> Iterator[dict[str, Any]]:
    """Objects of a file with one in each line; empty lines are passed over.

    Parameters
    ----------
    path : path
    kinds : mapping of type
        Keys that each object has, and of what type.
    expected : str
        What the file should be.

    Raises
    ------
    DataError
        The file cannot be read, or a line is no such object; the message names file and line.
    """
    with open_text(path, expected) as file:
        for number, line in _lines(file, path, expected):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}, expected {expected}") from error
            if not isinstance(value, dict):
                found = type(value).__name__
                raise DataError(f"{path}, line {number}: {found}, expected an object: {expected}")
            for key, kind in kinds.items():
                if key not in value:
                    found = ", ".join(value) or "no keys"
                    raise DataError(f"{path}, line {number}: found {found}, expected a key {key!r}")
                if not isinstance(value[key], kind):
                    raise DataError(
                        f"{path}, line {number}: {key} {value[key]!r}, expected {_KINDS[kind]}"
                    )
            yield value


def table(
    path: Location, columns: Sequence[str], expected: str, *, header: bool, delimiter: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows of a table, each row by its columns.

    Parameters
    ----------
    path : path
    columns : sequence of str
        With a header, columns that it must have; without one, what the columns are.
    expected : str
        What the file should be.
    header : bool
        Whether the first line names the columns.
    delimiter : str
        A comma, with quotes as in CSV; or a tab, where quotes are characters like others.

    Raises
    ------
    DataError
        The file cannot be read, or columns are missing; the message names what was found.
    """
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    csv.field_size_limit(1 << 30)  # whole documents stand in one field
    with open_text(path, expected) as file:
        lines = (line for _, line in _lines(file, path, expected))
        rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)
        names = list(columns)
        if header:
            names = next(rows, [])
            missing = [name for name in columns if name not in names]
            if missing:
                raise DataError(
                    f"{path}: columns {', '.join(names) or 'none'}, expected {missing[0]!r}"
                )
        for row in rows:
            if len(row) != len(names):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(row)} columns, "
                    f"expected {len(names)}: {', '.join(names)}"
                )
            yield rows.line_num, dict(zip(names, row, strict=True))


def _lines(file: TextIO, path: Location, expected: str) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(file, start=1)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error.reason}, expected {expected}") from error
