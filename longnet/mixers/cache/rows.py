"""Memory for the keys and values of a cache's levels."""

from __future__ import annotations

from collections.abc import Sequence

from longnet._core import Tensor, ops
from longnet.functional.buffers import empty, zeros
from longnet.mixers.cache.level import CachedLevel, Moves, Step


class CachedRows:
    """Compact rows: of each level, sequence and run of heads that share them, a matrix (M, D).

    Row j of a matrix is position s + j r of the present segment, or 0 where that is still to come.

    Parameters
    ----------
    levels : tuple of CachedLevel
    batch, head_dim : int
        B and D.
    dtype, device : str

    Attributes
    ----------
    levels : tuple of CachedLevel
    keys, values : Tensor (T, D)
        The matrices of level after level, ``T = B * sum(len(level.offsets) * level.rows)``.
    """

    def __init__(
        self, levels: tuple[CachedLevel, ...], *, batch: int, head_dim: int, dtype: str, device: str
    ) -> None:
        self.levels = levels
        self._batch = batch
        shape = (self._total(levels), head_dim)
        self.keys, self.values = (Tensor.empty(shape, dtype, device) for _ in range(2))
        ops.fill(self.keys, 0.0)
        ops.fill(self.values, 0.0)

    def matrices(self, level: int, sequence: int | None = None) -> tuple[Tensor, Tensor]:
        """Return keys and values (matrices, M, 1, D) of a level, of all sequences or of one."""
        return self._region(self.keys, level, sequence), self._region(self.values, level, sequence)

    def clear(self, level: int, sequence: int) -> None:
        """Drop the rows of a segment that has ended."""
        for region in self.matrices(level, sequence):
            ops.fill(region, 0.0)

    def append(self, i: int, sequence: int, place: int, k: Tensor, v: Tensor) -> None:
        """Store the positions from `place` on of level i's segment: k and v (1, n, Hk, D)."""
        level = self.levels[i]
        if place == 0:
            self.clear(i, sequence)
        first, end = level.window(place, k.shape[1])
        if first == end:
            return
        for x, region in zip((k, v), self.matrices(i, sequence), strict=True):
            part = empty((len(level.offsets), end - first, x.shape[3]), x)
            ops.gather_rows(part, x, level.starts(place, first), level.rate)
            ops.add_rows(region, part, [first], 1)  # to zeros: a copy

    def take(self, step: Step, k: Tensor, v: Tensor) -> None:
        """Store one position of each sequence: k and v (B, 1, Hk, D)."""
        for level, sequence in step.begun:
            self.clear(level, sequence)
        for x, buffer in ((k, self.keys), (v, self.values)):
            move_rows(buffer, x, step.moves)

    def make_room(self, positions: int) -> None:
        """Lay the matrices out anew where a segment that never ends outgrows them."""
        levels = tuple(level.holding(positions) for level in self.levels)
        if levels == self.levels:
            return
        D, buffers = self.keys.shape[1], []
        for buffer in (self.keys, self.values):
            larger, end = zeros((self._total(levels), D), buffer), 0
            for i, level in enumerate(levels):
                count = self._batch * len(level.offsets)
                begin, end = end, end + count * level.rows
                region = larger[begin:end].reshape(count, level.rows, D)
                ops.gather_rows(region, self._region(buffer, i), [0], 1)  # 0 past its end
            buffers.append(larger)
        (self.keys, self.values), self.levels = buffers, levels

    def _total(self, levels: Sequence[CachedLevel]) -> int:
        return self._batch * sum(len(level.offsets) * level.rows for level in levels)

    def _region(self, buffer: Tensor, i: int, sequence: int | None = None) -> Tensor:
        level, first = self.levels[i], self._total(self.levels[:i])
        each = len(level.offsets) * level.rows  # rows of one sequence
        begin, end = (0, self._batch) if sequence is None else (sequence, sequence + 1)
        rows = buffer[first + begin * each : first + end * each]
        return rows.reshape(-1, level.rows, 1, buffer.shape[1])


def move_rows(buffer: Tensor, x: Tensor, moves: Moves) -> None:
    """Make rows of x (..., D), counted over all dimensions but the last, rows of a buffer that are
    0."""
    D = x.shape[-1]
    for sources, targets in moves:
        part = empty((len(sources), 1, D), x)
        ops.gather_rows(part, x.reshape(1, -1, 1, D), sources, 1)
        ops.add_rows(buffer.reshape(1, -1, 1, D), part, targets, 1)  # to zeros: a copy
