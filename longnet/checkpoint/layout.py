"""The names a checkpoint's folder and files have, and what writer and reader both need."""

import hashlib
import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np

from longnet.errors import CheckpointError

FORMAT_VERSION = 1

MANIFEST = "manifest.json"
STATE = "state.json"
ARRAYS = ".safetensors"

# Importing ml_dtypes is also what lets safetensors give a bfloat16 array back.
DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", ml_dtypes.bfloat16),
    )
)

GROUP = re.compile(r"[a-z0-9_]+")

# A second save of one step is named step-00000100.1: the first stays until the second is complete.
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?", re.ASCII)


def name_of(step: int) -> str:
    """Return the name of the folder that holds the first save of `step`."""
    return f"step-{step:08d}"


def order(path: Path) -> tuple[int, int] | None:
    """Return step and save of a checkpoint's folder; None when it is not named like one."""
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def scan(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    """Return the checkpoints in `folder`, oldest first, each with its step and save."""
    try:
        named = [(order(path), path) for path in folder.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {reason(error)}") from error
    return sorted((key, path) for key, path in named if key is not None)


def latest(folder: str | os.PathLike[str]) -> Path | None:
    """Return the folder of the checkpoint with the highest step, None when there is none.

    Raises
    ------
    CheckpointError
        `folder` exists and cannot be read.
    """
    found = scan(Path(folder))
    return found[-1][1] if found else None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason(error: Exception) -> str:
    """Return the system's words for an error; safetensors gives its number in the text only."""
    number = re.search(r"(?:os error|Os { code:) (\d+)", str(error))
    if number:
        return os.strerror(int(number[1]))
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
