"""Batches of token windows for training, and the fixed windows of validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from longnet.arguments import integer
from longnet.data.permutation import Permutation
from longnet.data.sources import TokenSource
from longnet.errors import DataError

_MAX_TOKENS = 1 << 60  # of a batch: what a NumPy array can address


class Batches:
    """Endless iterator over shuffled windows of a source.

    In each epoch the source is cut, from a random offset below the sequence length on, into windows
    that do not overlap (but for the one token that is the last target of a window and the first
    input of the next), and a random permutation orders them. Offset and permutation come from a
    Philox generator keyed by (seed, epoch): what comes next depends on (seed, epoch, position) and
    nothing else. A batch that reaches the end of an epoch is filled up from the next one.

    Parameters
    ----------
    source : TokenSource
        The tokens.
    batch_size : int
        Rows of a batch, B.
    sequence_length : int
        Tokens of a row, N.
    seed : int
        0 .. 2^64 - 1.

    Raises
    ------
    DataError
        If the source is shorter than ``sequence_length + 1`` tokens, or a number is out of range.
    TypeError
        A number is none.
    """

    def __init__(
        self, source: TokenSource, batch_size: int, sequence_length: int, seed: int = 0
    ) -> None:
        batch_size = integer("batch_size", batch_size)
        sequence_length = integer("sequence_length", sequence_length)
        if batch_size < 1:
            raise DataError(f"batch_size: {batch_size}, expected at least 1")
        _check_length(source, sequence_length)
        most = _MAX_TOKENS // (sequence_length + 1)
        if batch_size > most:
            raise DataError(f"batch_size: {batch_size}, expected at most {most}")
        self._source = source
        self._batch_size = batch_size
        self._sequence_length = sequence_length
        self._start_epoch(_checked_seed(integer("seed", seed)), 0, 0)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch.

        Returns
        -------
        inputs, targets : numpy.ndarray, (B, N) int32
            Two C-contiguous arrays; ``targets[b, n]`` is the token after ``inputs[b, n]``.
        """
        rows = np.empty((self._batch_size, self._sequence_length + 1), np.int32)
        filled = 0
        while filled < self._batch_size:
            if self._position == self._windows:
                self._start_epoch(self._seed, self._epoch + 1, 0)
            take = min(self._batch_size - filled, self._windows - self._position)
            order = self._permutation(np.arange(self._position, self._position + take))
            for row, window in enumerate(order.tolist(), start=filled):
                start = self._offset + window * self._sequence_length
                rows[row] = self._source.read(start, self._sequence_length + 1)
            filled += take
            self._position += take
        return _shifted(rows)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on from here, as numbers and strings that JSON can hold."""
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
            "sequence_length": self._sequence_length,
            "fingerprint": self._source.fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the windows that follow are exactly the same.

        The batch size may differ, the position counts windows.

        Raises
        ------
        DataError
            If `state` lacks a key, belongs to another source or sequence length, or is out of
            range. Nothing has changed then.
        """
        expected = self.state_dict()
        missing = [key for key in expected if key not in state]
        if missing:
            raise DataError(
                f"data position: no {missing[0]!r}, expected keys {', '.join(expected)}"
            )
        for key in ("sequence_length", "fingerprint"):
            if state[key] != expected[key]:
                raise DataError(
                    f"data position: {key} {state[key]!r}, expected {expected[key]!r}: "
                    "it was saved with other data"
                )
        epoch, position = state["epoch"], state["position"]
        if not isinstance(epoch, int) or not 0 <= epoch < 2**64:
            raise DataError(f"data position: epoch {epoch!r}, expected an integer 0..2^64-1")
        seed = _checked_seed(state["seed"])
        windows = self._plan(seed, epoch)[1]
        if not isinstance(position, int) or not 0 <= position <= windows:
            raise DataError(f"data position: position {position!r}, expected 0..{windows}")
        self._start_epoch(seed, epoch, position)

    def _start_epoch(self, seed: int, epoch: int, position: int) -> None:
        self._seed, self._epoch, self._position = seed, epoch, position
        self._offset, self._windows, self._permutation = self._plan(seed, epoch)

    def _plan(self, seed: int, epoch: int) -> tuple[int, int, Permutation]:
        """Offset of the first window, number of windows and their order in one epoch."""
        key = np.array([seed, epoch], np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key))
        length = self._sequence_length
        last = len(self._source) - 1  # the last token is nobody's input
        offset = int(generator.integers(0, min(length, last - length + 1)))
        windows = (last - offset) // length
        return offset, windows, Permutation(windows, generator)


def validation_windows(
    source: TokenSource, sequence_length: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` windows spread evenly over a source, always the same ones.

    Window i of W is window ``i * T // W`` of the T that the source holds end to end.

    Parameters
    ----------
    source : TokenSource
        The tokens.
    sequence_length : int
        Tokens of a window, N.
    limit : int
        Most windows wanted.

    Returns
    -------
    inputs, targets : numpy.ndarray, (W, N) int32
        Two C-contiguous arrays; ``targets[i, n]`` is the token after ``inputs[i, n]``.

    Raises
    ------
    DataError
        If the source is shorter than ``sequence_length + 1`` tokens, or a number is out of range.
    """
    if limit < 1:
        raise DataError(f"limit: {limit} validation windows, expected at least 1")
    _check_length(source, sequence_length)
    total = (len(source) - 1) // sequence_length
    count = min(limit, total)
    rows = np.empty((count, sequence_length + 1), np.int32)
    for i in range(count):
        rows[i] = source.read(i * total // count * sequence_length, sequence_length + 1)
    return _shifted(rows)


def _check_length(source: TokenSource, sequence_length: int) -> None:
    if sequence_length < 1:
        raise DataError(f"sequence_length: {sequence_length}, expected at least 1")
    if len(source) < sequence_length + 1:
        raise DataError(
            f"source: {len(source)} tokens, expected at least {sequence_length + 1} "
            f"(sequence_length {sequence_length} and one target)"
        )


def _checked_seed(seed: Any) -> int:
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise DataError(f"seed: {seed!r}, expected an integer 0..2^64-1")
    return seed


def _shifted(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])
