"""The texts of a comparison: as much as a run reads, and windows to score."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from longnet.bench.paper.cells import Scale
from longnet.data import open_source, validation_windows
from longnet.errors import DataError

_PIECES = 64  # at even distances of the text that is given


@dataclass(frozen=True)
class Text:
    """What all runs have in common.

    Attributes
    ----------
    train, validation : Path
        Files of bytes. A run of any length reads `train` once, but for less than a sequence.
    inputs, targets : numpy.ndarray, (W, N) int32
        The windows to score.
    fingerprint : str
        Of both files.
    """

    train: Path
    validation: Path
    inputs: np.ndarray
    targets: np.ndarray
    fingerprint: str


def open_text(data: Path, folder: Path, scale: Scale) -> Text:
    """Make the training text in `folder` and cut the windows.

    Parameters
    ----------
    data : Path
        A folder with ``train.txt`` and ``validation.txt``, as bench/code_corpus.py makes it.
    folder : Path
        Where the part of ``train.txt`` goes that runs read.
    scale : Scale

    Raises
    ------
    DataError
        A file is absent or too short.
    """
    validation = data / "validation.txt"
    # Sequences are cut from a random place below their length on; one token more is a target.
    size = scale.tokens + scale.longest + 1
    try:
        whole = (data / "train.txt").read_bytes()
        held_out = validation.read_bytes()
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read: {error.strerror}; bench/code_corpus.py makes it"
        ) from error
    if len(whole) < size:
        raise DataError(f"{data / 'train.txt'}: {len(whole)} bytes, expected at least {size}")
    part = _spread(whole, size)
    digest = blake2b(part, digest_size=8)
    folder.mkdir(parents=True, exist_ok=True)
    train = folder / f"train-{digest.hexdigest()}.txt"
    if not train.exists():  # else another process may be reading it
        temporary = train.with_name(f"{train.name}-{os.getpid()}")
        temporary.write_bytes(part)
        temporary.replace(train)
    inputs, targets = validation_windows(
        open_source(str(validation), "validation", validation=str(validation), format="text"),
        scale.longest,
        scale.windows,
    )
    if len(inputs) < 2:
        raise DataError(
            f"{validation}: {len(held_out)} bytes, expected at least two windows of {scale.longest}"
        )
    digest.update(held_out)
    return Text(train, validation, inputs, targets, digest.hexdigest())


def _spread(text: bytes, size: int) -> bytes:
    """`size` bytes of a text, in pieces that begin at even distances."""
    bounds = [size * i // _PIECES for i in range(_PIECES + 1)]
    step = len(text) // _PIECES
    if bounds[1] + 1 > step:  # pieces would run into each other
        return text[:size]
    return b"".join(text[i * step : i * step + bounds[i + 1] - bounds[i]] for i in range(_PIECES))
