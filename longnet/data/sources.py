"""Token sources: one long sequence of token ids, read a window at a time.

Everything downstream (batches, evaluation, n-gram baselines) sees data through the three members
of `TokenSource`. Positions and lengths are 64-bit everywhere, so several shards one after another
may hold far more than 2^31 tokens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from longnet.errors import DataError

# A fingerprint reads this much at either end of a file: enough to tell data sets apart in no time.
_SAMPLE_BYTES = 1 << 16


@runtime_checkable
class TokenSource(Protocol):
    """A sequence of token ids of known length that can be read anywhere."""

    @property
    def fingerprint(self) -> str:
        """Identity of the tokens, so that a resumed run can tell whether its data has changed."""

    def __len__(self) -> int:
        """Number of tokens."""

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens ``start .. start + count - 1`` as a new (count,) int32 array."""


@dataclass(frozen=True)
class FileSpan:
    """A run of fixed-size items inside one file.

    Parameters
    ----------
    path : Path
        The file.
    offset : int
        First byte of the run.
    count : int
        Number of items.
    dtype : numpy.dtype
        Unsigned integer type of an item, with its byte order.
    """

    path: Path
    offset: int
    count: int
    dtype: np.dtype

    def read(self, start: int, count: int) -> np.ndarray:
        """Items ``start .. start + count - 1`` as a memory map of the file.

        The map is made anew on each read and is to be copied at once: a map kept open costs a file
        descriptor a shard, and kills the process with SIGBUS when somebody truncates the file.
        """
        offset = self.offset + start * self.dtype.itemsize
        try:
            return np.memmap(self.path, self.dtype, mode="r", offset=offset, shape=(count,))
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from error
        except ValueError as error:
            size = os.path.getsize(self.path)
            end = offset + count * self.dtype.itemsize
            raise DataError(
                f"{self.path}: file holds {size} bytes, expected at least {end} "
                "(it has become shorter since it was opened)"
            ) from error


class ArraySource:
    """Tokens held in memory.

    Parameters
    ----------
    tokens : array_like of int, shape (n,)
        The token ids, kept in the integer type given.
    vocab_size : int, optional
        When given, every id read must lie in ``0 .. vocab_size - 1``.

    Raises
    ------
    DataError
        If `tokens` is not a one-dimensional array of integers.
    """

    def __init__(self, tokens: np.ndarray | Sequence[int], vocab_size: int | None = None) -> None:
        array = np.asarray(tokens)
        if not array.size:
            array = array.astype(np.int32)  # an empty list arrives as float64
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(
                f"tokens: {array.dtype} array of rank {array.ndim}, expected integers of rank 1"
            )
        self._tokens = array
        self._vocab_size = vocab_size

    def __len__(self) -> int:
        return self._tokens.size

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every token."""
        digest = hashlib.blake2b(self._tokens.dtype.str.encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self._tokens).data)
        return f"array:{digest.hexdigest()}"

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens ``start .. start + count - 1`` as a new (count,) int32 array.

        Raises
        ------
        DataError
            If the range leaves the source or an id leaves the vocabulary.
        """
        _check_range(start, count, len(self))
        out = np.empty(count, np.int32)
        _copy_ids(out, self._tokens[start : start + count], self._vocab_size, "tokens", start)
        return out


class FileSource:
    """Tokens in files: the spans one after another, joined by a separator when there is one.

    Parameters
    ----------
    spans : sequence of FileSpan
        Where the tokens lie. Spans of no items are left out.
    vocab_size : int, optional
        When given, every id read must lie in ``0 .. vocab_size - 1``.
    separator : int, optional
        Token put between two spans (not before the first, nor after the last).

    Raises
    ------
    DataError
        If the spans hold no token at all.
    """

    def __init__(
        self,
        spans: Sequence[FileSpan],
        vocab_size: int | None = None,
        separator: int | None = None,
    ) -> None:
        self.spans = tuple(span for span in spans if span.count)
        if not self.spans:
            raise DataError(f"0 tokens in {len(spans)} files, expected at least 1")
        self._vocab_size = vocab_size
        self._separator = separator
        gap = separator is not None
        ends = np.cumsum([span.count + gap for span in self.spans], dtype=np.int64)
        self._starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        self._length = int(ends[-1]) - gap

    def __len__(self) -> int:
        return self._length

    @cached_property
    def fingerprint(self) -> str:
        """Hash of each span's length and of its first and last 64 KiB; paths do not enter.

        A change in the middle of a large file that keeps its length goes unnoticed.
        """
        digest = hashlib.blake2b(f"{self._separator}".encode(), digest_size=16)
        for span in self.spans:
            digest.update(f"{span.dtype.str} {span.count};".encode())
            sample = min(span.count, _SAMPLE_BYTES // span.dtype.itemsize)
            digest.update(span.read(0, sample).tobytes())
            if sample < span.count:
                digest.update(span.read(span.count - sample, sample).tobytes())
        return f"files:{digest.hexdigest()}"

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens ``start .. start + count - 1`` as a new (count,) int32 array.

        Raises
        ------
        DataError
            If the range leaves the source, an id leaves the vocabulary, or a file cannot be read or
            has become shorter.
        """
        _check_range(start, count, len(self))
        out = np.empty(count, np.int32)
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        filled = 0
        while filled < count:
            span = self.spans[index]
            local = start + filled - int(self._starts[index])
            take = min(span.count - local, count - filled)
            if take:
                ids = span.read(local, take)
                _copy_ids(out[filled : filled + take], ids, self._vocab_size, str(span.path), local)
                filled += take
            if filled < count and self._separator is not None:
                out[filled] = self._separator
                filled += 1
            index += 1
        return out


def _check_range(start: int, count: int, length: int) -> None:
    if start < 0 or count < 0 or start + count > length:
        raise DataError(
            f"read of {count} tokens at position {start}, expected a range inside 0..{length}"
        )


def _copy_ids(
    out: np.ndarray, ids: np.ndarray, vocab_size: int | None, name: str, position: int
) -> None:
    """Check `ids`, the first of which lies at `position` in `name`, and copy them into `out`."""
    limit = (1 << 31) if vocab_size is None else vocab_size
    # np.iinfo first: bytes in a vocabulary of 256 need no look at the data.
    may_leave = np.iinfo(ids.dtype).max >= limit or np.iinfo(ids.dtype).min < 0
    if may_leave and ids.size and (int(ids.max()) >= limit or int(ids.min()) < 0):
        first = int(np.argmax((ids < 0) | (ids >= limit)))
        raise DataError(
            f"{name}: token id {int(ids[first])} at position {position + first}, "
            f"expected 0..{limit - 1}"
        )
    np.copyto(out, ids, casting="unsafe")
