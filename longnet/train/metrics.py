"""The record of a run: ``metrics.jsonl``, one JSON object a line, its steps increasing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from longnet.errors import ConfigError, LongNetError
from longnet.evaluate.perplexity import Evaluation


class MetricsFile:
    """Appends records to a file that no other run writes at the same time.

    Parameters
    ----------
    path : path
        The file; created when missing.
    step : int
        Updates already made. Records of later steps, which a run left that was killed after its
        last checkpoint, are cut off: the run makes these steps again.

    Raises
    ------
    ConfigError
        Another run is writing the file.
    LongNetError
        The file cannot be opened, or later on not be written.
    """

    def __init__(self, path: str | os.PathLike[str], step: int) -> None:
        self._path = Path(path)
        try:
            self._file = self._path.open("a+b")
            try:
                self._lock()
                self._file.truncate(_end_of(self._file, step))
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._file.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        try:
            self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """Return when every record is on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{self._path}: found another run writing it, expected none: "
                "wait for that run or choose another train.out_dir"
            ) from None
        except OSError as error:
            # Some cluster file systems have no locks; there the caller sees to it.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise

    def _failure(self, error: OSError) -> LongNetError:
        return LongNetError(f"{self._path}: cannot be written: {error.strerror}")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``, without a last line that a killed run left unfinished.

    Raises
    ------
    LongNetError
        The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return [record for line in file if (record := _parse(line)) is not None]
    except OSError as error:
        raise LongNetError(f"{path}: cannot be read: {error.strerror}") from error


def validation_record(evaluation: Evaluation) -> dict[str, float]:
    """What an evaluation adds to the record of its step."""
    record = {"validation_loss": evaluation.loss}
    if evaluation.bits_per_byte is not None:
        record["validation_bits_per_byte"] = evaluation.bits_per_byte
    if evaluation.accuracy is not None:
        record["validation_accuracy"] = evaluation.accuracy
    return record


def validation_text(step: int, evaluation: Evaluation) -> str:
    """What a person is told of an evaluation."""
    text = f"step {step}: validation loss {evaluation.loss:.3f}"
    if evaluation.bits_per_byte is not None:
        text += f", {evaluation.bits_per_byte:.3f} bits per byte"
    if evaluation.accuracy is not None:
        text += f", accuracy {evaluation.accuracy:.1%}"
    return text


def _end_of(file: BinaryIO, step: int) -> int:
    """Bytes that the records up to `step` take at the head of the file."""
    file.seek(0)
    end = 0
    for line in file:
        record = _parse(line)
        if record is None or record["step"] > step:
            break
        end += len(line)
    return end


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record of one line, None where it is not a whole one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = line.endswith(b"\n") and isinstance(record, dict)
    return record if whole and isinstance(record.get("step"), int) else None
