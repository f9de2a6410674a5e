"""LAMBADA, PG-19 and LongBench as they are published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from longnet.errors import DataError
from longnet.evaluate.metrics import split_last_word
from longnet.evaluate.readers.files import Location, json_lines, need_folder, read_text, table

_BOOK_COLUMNS = ("id", "short_book_title", "publication_date", "url")


@dataclass(frozen=True)
class Passage:
    """A passage of LAMBADA.

    Attributes
    ----------
    context : str
        All but the last word.
    word : str
        The last word, with the white space before it.
    """

    context: str
    word: str


def read_lambada(path: Location) -> Iterator[Passage]:
    """Read LAMBADA from a file of JSON lines with the key ``text`` (``lambada_test.jsonl``).

    Raises
    ------
    DataError
        The file is missing or of another form.
    """
    expected = 'lines such as {"text": "..."}'
    for number, item in enumerate(json_lines(path, {"text": str}, expected), start=1):
        try:
            yield Passage(*split_last_word(item["text"]))
        except DataError as error:
            raise DataError(f"{path}, passage {number}: {error}") from error


@dataclass(frozen=True)
class Book:
    """A book of PG-19.

    Attributes
    ----------
    number : str
        Its Project Gutenberg id.
    title : str
    year : int
        Of publication.
    text : str
    """

    number: str
    title: str
    year: int
    text: str


def read_pg19(folder: Location, split: str = "test") -> Iterator[Book]:
    """Read a split of PG-19 from a folder with ``metadata.csv`` and ``test/10146.txt``.

    Parameters
    ----------
    folder : path
        Where ``metadata.csv`` lies, which has no header: id, title, year and address.
    split : str
        ``train``, ``validation`` or ``test``, a folder of files ``<id>.txt``.

    Raises
    ------
    DataError
        A file is missing or of another form, or has no row in ``metadata.csv``.
    """
    folder = need_folder(folder, "the folder of PG-19: metadata.csv, train, validation, test")
    books = need_folder(folder / split, f"the {split} split of PG-19, a folder of <id>.txt")
    metadata = {}
    path = folder / "metadata.csv"
    rows = table(path, _BOOK_COLUMNS, "PG-19's list of books", header=False, delimiter=",")
    for line, row in rows:
        if not row["publication_date"].isdecimal():
            found = row["publication_date"]
            raise DataError(f"{path}, line {line}: publication_date {found!r}, expected a year")
        metadata[row["id"]] = row
    files = sorted(books.glob("*.txt"))
    if not files:
        raise DataError(f"{books}: 0 files <id>.txt, expected at least 1")
    for file in files:
        if file.stem not in metadata:
            raise DataError(f"{file}: no row {file.stem} in {path}, expected one")
        row = metadata[file.stem]
        text = read_text(file, "a book's text")
        yield Book(file.stem, row["short_book_title"], int(row["publication_date"]), text)


@dataclass(frozen=True)
class Question:
    """An item of LongBench or LongBench-E.

    Attributes
    ----------
    dataset : str
        Such as ``hotpotqa`` or ``lcc``.
    context, question : str
        The long text, and what is asked of it, which may be empty.
    answers : tuple of str
        Each of them is right.
    classes : tuple of str
        Of classification tasks; else empty.
    length : int
        Words, as the file counts them.
    """

    dataset: str
    context: str
    question: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]
    length: int


def read_longbench(path: Location) -> Iterator[Question]:
    """Read LongBench from one of its files of JSON lines (``hotpotqa.jsonl``, ``lcc_e.jsonl``).

    Raises
    ------
    DataError
        The file is missing or of another form.
    """
    kinds = {"input": str, "context": str, "answers": list, "length": int, "dataset": str}
    items = json_lines(path, kinds, "LongBench's JSON lines")
    for number, item in enumerate(items, start=1):
        where = f"{path}, item {number}"
        answers = _strings(where, "answers", item["answers"])
        if not answers:
            raise DataError(f"{where}: 0 answers, expected at least 1")
        classes = _strings(where, "all_classes", item.get("all_classes") or [])
        yield Question(
            item["dataset"], item["context"], item["input"], answers, classes, item["length"]
        )


def _strings(where: str, key: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DataError(f"{where}: {key} {values!r}, expected a list of strings")
    return tuple(values)
