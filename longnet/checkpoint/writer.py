"""Save a checkpoint so that a process killed at any moment loses none.

Everything is written under a temporary name, flushed to the disk, and renamed; only then are older
checkpoints removed.
"""

import contextlib
import errno
import fcntl
import json
import operator
import os
import shutil
import stat
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from longnet.checkpoint.layout import (
    ARRAYS,
    DTYPES,
    FORMAT_VERSION,
    GROUP,
    MANIFEST,
    STATE,
    name_of,
    reason,
    scan,
    sha256,
)
from longnet.errors import CheckpointError

_LEFTOVER = ".unfinished-"


def save(
    folder: str | os.PathLike[str],
    step: int,
    arrays: Mapping[str, Mapping[str, np.ndarray]],
    state: Mapping[str, Any],
    keep: int = 3,
) -> Path:
    """Write a checkpoint, then remove the oldest ones.

    Parameters
    ----------
    folder : path
        Where checkpoints lie; created when missing.
    step : int
        Updates made so far, from 0. An existing checkpoint of this step is replaced.
    arrays : mapping of mapping of ndarray
        Arrays by group and name, of any shape; bool, integers, float16, bfloat16 (ml_dtypes),
        float32 or float64. Arrays in C order are written without a copy.
    state : mapping
        Anything `json` can write; keys become strings and tuples lists.
    keep : int
        Checkpoints to leave, this one included. Those of later steps are neither counted nor
        removed.

    Returns
    -------
    Path
        The new checkpoint's folder.

    Raises
    ------
    CheckpointError
        An argument cannot be stored, another process is saving here, or the disk refuses (no
        space, no permission; the message names the path, the bytes needed and the bytes free).
        Checkpoints that were there are then still there, and what was written is removed.

    Warns
    -----
    UserWarning
        The checkpoint is complete, but an older one or a leftover cannot be removed.
    """
    folder = Path(folder)
    step = operator.index(step)
    if step < 0 or keep < 1:
        raise CheckpointError(f"found step {step}, keep {keep}; expected at least 0 and at least 1")
    groups = {group: _storable(group, named) for group, named in arrays.items()}
    text = _state_text(step, state)
    try:
        _make_folder(folder)
        with _exclusive(folder):
            for path in folder.glob(f"{_LEFTOVER}*"):
                _remove(path)
            path = _write(folder, step, groups, text)
            _prune(folder, step, path, keep)
            return path
    except (OSError, SafetensorError) as error:
        needed = sum(a.nbytes for named in groups.values() for a in named.values()) + len(text)
        raise CheckpointError(
            f"{folder / name_of(step)}: cannot be saved: {reason(error)}; "
            f"{needed} bytes needed, {_free_bytes(folder)} free"
        ) from error


def _storable(group: str, named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays in C order: safetensors writes the memory behind them as it lies."""
    if not GROUP.fullmatch(group):
        raise CheckpointError(f"group: found {group!r}, expected a name of a-z, 0-9 and _")
    arrays = {name: np.asarray(array, order="C") for name, array in named.items()}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("=") not in DTYPES:
            expected = "bool, an integer or a float of at most 64 bits"
            raise CheckpointError(f"{group}/{name}: found {array.dtype}, expected {expected}")
        if name == "__metadata__":
            raise CheckpointError(f"{group}: found the name {name}, expected one not reserved")
    return arrays


def _state_text(step: int, state: Mapping[str, Any]) -> bytes:
    content = {"format_version": FORMAT_VERSION, "step": step, "state": dict(state)}
    try:
        return json.dumps(content, indent=1).encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"state: found {error}, expected what JSON can hold") from error


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _fsync(path.parent)


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that what another save is writing is not taken for a leftover."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{folder}: found another save going on, expected none") from None
        except OSError as error:
            # Some cluster file systems have no locks; there the caller sees to it.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield
    finally:
        # A child forked meanwhile shares the descriptor: closing ours alone would leave it locked.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _write(folder: Path, step: int, groups: dict[str, dict[str, np.ndarray]], text: bytes) -> Path:
    temporary = folder / f"{_LEFTOVER}{name_of(step)}-{os.getpid()}"
    try:
        temporary.mkdir()
        for group, named in groups.items():
            save_file(named, temporary / f"{group}{ARRAYS}")
        (temporary / STATE).write_bytes(text)
        mode = stat.S_IMODE((temporary / STATE).stat().st_mode)
        files = {}
        for path in sorted(temporary.iterdir()):
            path.chmod(mode)  # safetensors makes its files private
            _fsync(path)
            files[path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
        manifest = {"format_version": FORMAT_VERSION, "step": step, "files": files}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _fsync(temporary / MANIFEST)
        _fsync(temporary)
        saves = [save for (saved_step, save), _ in scan(folder) if saved_step == step]
        path = folder / (f"{name_of(step)}.{saves[-1] + 1}" if saves else name_of(step))
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _fsync(folder)
    return path


def _prune(folder: Path, step: int, newest: Path, keep: int) -> None:
    """Remove the earlier saves of `step`, and all but the last `keep` - 1 of the steps before."""
    found = scan(folder)
    before = [path for key, path in found if key[0] < step]
    replaced = [path for key, path in found if key[0] == step and path != newest]
    for path in before[: max(0, len(before) - (keep - 1))] + replaced:
        leftover = folder / f"{_LEFTOVER}{path.name}"
        try:
            # Renamed first: half of a removed checkpoint must not look like one.
            path.rename(leftover)
        except OSError as error:
            _warn_kept(path, error)
        else:
            _remove(leftover)


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        _warn_kept(path, error)


def _warn_kept(path: Path, error: OSError) -> None:
    # Not an exception: it costs space, and stopping the run would cost more.
    warnings.warn(f"{path}: cannot be removed: {reason(error)}", stacklevel=4)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_bytes(folder: Path) -> int | str:
    for path in (folder.absolute(), *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(path).free
    return "unknown"
