"""Finding data files, and splitting them into train and validation the same way every time."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from longnet.data.sources import FileSpan
from longnet.errors import DataError

Spec = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

SPLITS = ("train", "validation")
VALIDATION_SHARE = 0.07  # of the files, when there are enough of them to split by file
TAIL_DIVISOR = 20  # 1/20 of each file, when there are not
MANY_FILES = 32

# Whole words of a shard's name: val.bin, fineweb_val_000000.bin, but not interval.bin.
_VALIDATION_NAME = re.compile(r"(?:^|[^a-z])(?:val|valid|validation)(?:[^a-z]|$)")


@dataclass(frozen=True)
class DataFile:
    """A file, and its path relative to where the search began: the name that is hashed."""

    path: Path
    relative: str


def find_files(spec: Spec) -> list[DataFile]:
    """Regular files that a path, folder, glob or list of them names.

    Folders are searched recursively, without following links to folders; names that begin with a
    dot and ``__pycache__`` are passed over. A glob knows ``**`` and takes files only. The files of
    one entry are sorted by relative path, entries of a list keep their order, and a file found
    twice counts once.

    Raises
    ------
    DataError
        If an entry names nothing, or a folder cannot be read.
    """
    entries = [spec] if isinstance(spec, str | os.PathLike) else list(spec)
    if not entries:
        raise DataError("data: an empty list, expected at least one file, folder or glob")
    found: dict[Path, DataFile] = {}
    for entry in entries:
        for file in _find_entry(os.path.expanduser(os.fspath(entry))):
            found.setdefault(file.path, file)
    return list(found.values())


def path_hash(relative: str) -> int:
    """64-bit hash of a relative path: the same on every machine and in every process."""
    digest = hashlib.blake2b(relative.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def is_validation(split: str) -> bool:
    """Whether the split named is validation.

    Raises
    ------
    DataError
        If there is no split of that name.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r}, expected {' or '.join(SPLITS)}")
    return split == "validation"


def in_validation(relative: str) -> bool:
    """Whether a file belongs to validation: its hash lies in the lowest 7 % of the range."""
    return path_hash(relative) < VALIDATION_SHARE * 2**64


def split_spans(
    files: Sequence[DataFile], spans: Sequence[FileSpan], split: str, by_name: bool
) -> list[FileSpan]:
    """The part of `spans` that belongs to `split` ("train" or "validation").

    1. With `by_name`, files that call themselves ``val``, ``valid`` or ``validation`` beside others
       that do not are the validation split.
    2. 32 files or more are split by file: validation is those whose relative path hashes into the
       lowest 7 % (at least one file), so that adding a file moves no other.
    3. Of fewer files, the last twentieth of each is validation.
    """
    validation = is_validation(split)
    held_out = [by_name and bool(_VALIDATION_NAME.search(f.path.stem.lower())) for f in files]
    if not any(held_out) or all(held_out):
        if len(files) < MANY_FILES:
            return [_head_or_tail(span, validation) for span in spans]
        lowest = min(path_hash(file.relative) for file in files)
        held_out = [
            in_validation(file.relative) or path_hash(file.relative) == lowest for file in files
        ]
    return [span for span, held in zip(spans, held_out, strict=True) if held == validation]


def _find_entry(entry: str) -> list[DataFile]:
    if os.path.isfile(entry):
        return [DataFile(Path(entry), os.path.basename(entry))]
    if os.path.isdir(entry):
        paths = _walk(entry)
        if not paths:
            raise DataError(f"{entry}: a folder with 0 files, expected at least 1")
        return _sorted_relative(paths, entry)
    if glob.has_magic(entry):
        paths = [path for path in glob.glob(entry, recursive=True) if os.path.isfile(path)]
        if not paths:
            raise DataError(f"{entry}: glob matches 0 files, expected at least 1")
        return _sorted_relative(paths, _glob_root(entry))
    try:
        os.stat(entry)
        found = "not a regular file"
    except FileNotFoundError:
        found = "no such file"
    except (OSError, ValueError) as error:  # ValueError: a null character
        found = getattr(error, "strerror", None) or str(error)
    raise DataError(f"{entry!r}: {found}, expected a file, a folder or a glob")


def _walk(folder: str) -> list[str]:
    def fail(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: {error.strerror}, expected a readable folder"
        ) from error

    paths = []
    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        paths += [os.path.join(root, name) for name in names if name[0] != "."]
    return [path for path in paths if os.path.isfile(path)]


def _glob_root(pattern: str) -> str:
    root = pattern
    while glob.has_magic(root):
        root = os.path.dirname(root)
    return root or os.curdir


def _sorted_relative(paths: list[str], root: str) -> list[DataFile]:
    files = [DataFile(Path(path), Path(os.path.relpath(path, root)).as_posix()) for path in paths]
    return sorted(files, key=lambda file: file.relative)


def _head_or_tail(span: FileSpan, tail: bool) -> FileSpan:
    cut = span.count - span.count // TAIL_DIVISOR
    if span.dtype.itemsize == 1:
        # Text: never inside a UTF-8 character, whose later bytes are 10xxxxxx (at most three).
        following = span.read(cut, min(3, span.count - cut)) if cut < span.count else ()
        for byte in following:
            if byte & 0xC0 != 0x80:
                break
            cut += 1
    if not tail:
        return replace(span, count=cut)
    offset = span.offset + cut * span.dtype.itemsize
    return replace(span, offset=offset, count=span.count - cut)
