"""Pre-tokenised shards: nanoGPT's raw ``.bin`` and llm.c's ``.bin`` with a header.

nanoGPT: little-endian uint16 tokens and nothing else.

llm.c: a header of 256 little-endian int32 (magic number, version, number of tokens, zeros), then
the tokens:

============  =======  ======
magic number  version  tokens
============  =======  ======
20240520      1        uint16
20240801      7        uint32
============  =======  ======
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from longnet.data.sources import FileSpan
from longnet.errors import DataError

SHARD_FORMATS = ("auto", "nanogpt", "llmc")

_HEADER = np.dtype("<i4")
_HEADER_BYTES = 256 * _HEADER.itemsize
_LLMC_VERSIONS: dict[int, tuple[int, np.dtype]] = {
    20240520: (1, np.dtype("<u2")),
    20240801: (7, np.dtype("<u4")),
}


def shard_span(path: str | os.PathLike[str], format: str = "auto") -> FileSpan:
    """Find the tokens of one shard.

    Parameters
    ----------
    path : path-like
        The shard.
    format : {"auto", "nanogpt", "llmc"}
        ``"auto"`` takes a file that begins like a llm.c header as llm.c, any other as nanoGPT.
        (GPT-2 text never begins with a magic number: its low half is above GPT-2's largest id.)

    Returns
    -------
    FileSpan
        The run of tokens inside the file.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, has a wrong magic number or version, or its size is
        not what its header or format says.
    """
    if format not in SHARD_FORMATS:
        raise DataError(f"shard format {format!r}, expected one of {', '.join(SHARD_FORMATS)}")
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not size:
        raise DataError(f"{path}: 0 bytes, expected a shard of tokens")
    if format == "llmc" or (format == "auto" and _begins_like_llmc(head)):
        return _llmc_span(path, head, size)
    if size % 2:
        raise DataError(
            f"{path}: {size} bytes, expected an even number (nanoGPT tokens are uint16)"
        )
    return FileSpan(path, 0, size // 2, np.dtype("<u2"))


def _begins_like_llmc(head: bytes) -> bool:
    """A known magic number, or a header's shape (three numbers, then zeros) with an unknown one."""
    fields = np.frombuffer(head[: len(head) // 4 * 4], _HEADER)
    if fields.size and int(fields[0]) in _LLMC_VERSIONS:
        return True
    return len(head) == _HEADER_BYTES and bool(fields[:3].all()) and not fields[3:].any()


def _llmc_span(path: Path, head: bytes, size: int) -> FileSpan:
    if len(head) < _HEADER_BYTES:
        raise DataError(f"{path}: {size} bytes, expected a llm.c header of {_HEADER_BYTES} or more")
    magic, version, tokens = (int(field) for field in np.frombuffer(head, _HEADER)[:3])
    if magic not in _LLMC_VERSIONS:
        known = " or ".join(f"{number}" for number in _LLMC_VERSIONS)
        raise DataError(f"{path}: magic number {magic}, expected {known} (llm.c)")
    expected_version, dtype = _LLMC_VERSIONS[magic]
    if version != expected_version:
        raise DataError(
            f"{path}: version {version}, expected {expected_version} with magic number {magic}"
        )
    expected_size = _HEADER_BYTES + tokens * dtype.itemsize
    if size != expected_size:
        held = (size - _HEADER_BYTES) // dtype.itemsize
        raise DataError(
            f"{path}: file holds {held} tokens ({size} bytes), "
            f"expected {tokens} as its header says ({expected_size} bytes)"
        )
    return FileSpan(path, _HEADER_BYTES, tokens, dtype)
