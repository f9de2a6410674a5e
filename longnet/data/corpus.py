"""The corpus that is always there: the source code of Python's own standard library."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from longnet.data.files import DataFile, in_validation, is_validation, path_hash
from longnet.data.sources import FileSource, FileSpan
from longnet.data.text import byte_source, text_span
from longnet.errors import DataError

_EXCLUDED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
)
# Written when Python was built, full of that machine's paths: not the same on two machines.
_BUILD_PREFIXES = ("config-", "_sysconfigdata")


def stdlib_files() -> list[DataFile]:
    """The standard library's ``.py`` files, without packages installed beside it and without tests.

    Returns
    -------
    list of DataFile
        Ordered by the hash of the relative path: an order that is always the same, in which
        neighbours have nothing to do with each other.

    Raises
    ------
    DataError
        If this Python comes without the source of its standard library.
    """
    root = sysconfig.get_path("stdlib")
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _EXCLUDED_FOLDERS]
        folders[:] = [name for name in folders if not name.startswith(_BUILD_PREFIXES)]
        for name in names:
            if name.endswith(".py") and not name.startswith(_BUILD_PREFIXES):
                path = Path(folder, name)
                if path.is_file():
                    files.append(DataFile(path, path.relative_to(root).as_posix()))
    if not files:
        raise DataError(f"{root}: 0 .py files, expected the standard library's source")
    return sorted(files, key=lambda file: path_hash(file.relative))


def stdlib_spans(split: str) -> list[FileSpan]:
    """The files of one split, ``"train"`` or ``"validation"``, each as a span of bytes."""
    wanted = is_validation(split)
    files = [file for file in stdlib_files() if in_validation(file.relative) == wanted]
    return [text_span(file.path) for file in files]


def stdlib_source(split: str) -> FileSource:
    """The standard library's source code as bytes.

    Each file belongs to one split by the hash of its relative path (7 % to validation), so the
    split is the same every time.

    Parameters
    ----------
    split : {"train", "validation"}
        Which part.

    Returns
    -------
    FileSource
        Byte tokens (0..255), files joined by a newline.

    Raises
    ------
    DataError
        If this Python comes without the source of its standard library, or there is no such split.
    """
    return byte_source(stdlib_spans(split))
