"""Read a checkpoint, and refuse one that is not what was saved."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from longnet.checkpoint.layout import (
    ARRAYS,
    FORMAT_VERSION,
    GROUP,
    MANIFEST,
    STATE,
    name_of,
    order,
    reason,
    scan,
    sha256,
)
from longnet.errors import CheckpointError

_FILE = re.compile(rf"{re.escape(STATE)}|{GROUP.pattern}{re.escape(ARRAYS)}")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds.

    Attributes
    ----------
    path : Path
        Its folder.
    step : int
        Updates made when it was saved.
    arrays : dict of dict of ndarray
        Arrays by group and name; writable, each with memory of its own.
    state : dict
        The JSON that was saved with them.
    """

    path: Path
    step: int
    arrays: dict[str, dict[str, np.ndarray]]
    state: dict[str, Any]


def load(path: str | os.PathLike[str], verify: bool = True) -> Checkpoint:
    """Read one checkpoint.

    Parameters
    ----------
    path : path
        The checkpoint's own folder, as `save` and `latest` return it.
    verify : bool
        Compare the SHA-256 of every file with the manifest's before using any of them.

    Raises
    ------
    CheckpointError
        A file is missing, truncated or changed, or of another format version; the message names
        the file, what was found and what was expected.
    """
    path = Path(path)
    step, names = _check(path, verify)
    content = _read_json(path / STATE)
    _expect(path / STATE, "step", content.get("step"), step)
    state = content.get("state")
    if not isinstance(state, dict):
        _damaged(path / STATE, f"state {type(state).__name__}", "an object")
    arrays = {
        name.removesuffix(ARRAYS): _read_arrays(path / name) for name in names if name != STATE
    }
    return Checkpoint(path, step, arrays, state)


def load_latest(folder: str | os.PathLike[str], verify: bool = True) -> Checkpoint:
    """Read the checkpoint with the highest step; never an older one in its place.

    Parameters
    ----------
    folder : path
        Where checkpoints lie.
    verify : bool
        As for `load`.

    Raises
    ------
    CheckpointError
        There is none, or it is damaged: the message then also names the newest one that is intact,
        for `load` to read.
    """
    folder = Path(folder)
    found = [path for _, path in scan(folder)]
    if not found:
        _damaged(folder, "no checkpoint", f"a folder such as {name_of(1000)}")
    try:
        return load(found[-1], verify)
    except CheckpointError as error:
        intact = next((path for path in reversed(found[:-1]) if _is_intact(path)), None)
        hint = f"{intact} is intact" if intact else "no older one is intact"
        raise CheckpointError(f"{error}; {hint}") from error


def _check(path: Path, verify: bool) -> tuple[int, list[str]]:
    """Compare the files of a checkpoint with its manifest; return its step and their names."""
    where = path / MANIFEST
    manifest = _read_json(where)
    _expect(where, "format_version", manifest.get("format_version"), FORMAT_VERSION)
    step, files = manifest.get("step"), manifest.get("files")
    key = order(path)
    if key is not None:
        _expect(where, "step", step, key[0])
    if not isinstance(step, int) or not isinstance(files, dict) or STATE not in files:
        _damaged(where, f"the fields {', '.join(manifest)}", f"a step, and files with {STATE}")
    for name, entry in files.items():
        if not _FILE.fullmatch(name):
            _damaged(where, f"the file name {name!r}", f"{STATE} or <group>{ARRAYS}")
        match entry:
            case {"size": int(size), "sha256": str(digest)}:
                _check_file(path / name, size, digest if verify else None)
            case _:
                _damaged(where, f"{entry!r} for {name}", "its size and sha256")
    return step, list(files)


def _check_file(path: Path, size: int, digest: str | None) -> None:
    try:
        _expect(path, "size in bytes", path.stat().st_size, size)
        if digest is not None:
            _expect(path, "SHA-256", sha256(path), digest)
    except FileNotFoundError:
        _damaged(path, "no such file", f"{size} bytes")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason(error)}") from error


def _is_intact(path: Path) -> bool:
    try:
        _check(path, verify=True)
    except CheckpointError:
        return False
    return True


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {reason(error)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        _damaged(path, "no such file", "one (a checkpoint is a folder that holds it)")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        _damaged(path, f"damage ({error})", "JSON")
    if not isinstance(content, dict):
        _damaged(path, type(content).__name__, "an object")
    return content


def _expect(path: Path, what: str, found: object, expected: object) -> None:
    if found != expected or type(found) is not type(expected):
        _damaged(path, f"{what} {found!r}", repr(expected))


def _damaged(path: Path, found: str, expected: str) -> NoReturn:
    raise CheckpointError(f"{path}: found {found}, expected {expected}")
