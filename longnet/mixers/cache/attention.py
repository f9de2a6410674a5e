"""Attention of rows that follow others, of which only a cache is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.functional.buffers import cast_to, empty, zeros
from longnet.mixers.cache.base import Cache, attention
from longnet.mixers.cache.level import CachedLevel, plan_step
from longnet.mixers.cache.rows import CachedRows


class AttentionCache(Cache):
    """The keys and values that later rows of one attention layer may look at.

    Parameters
    ----------
    segment_lengths, dilation_rates : sequence of int
        w and r of each level; w is `UNBOUNDED` where a segment never ends.
    num_heads, kv_heads, head_dim : int
        H, Hk and D.
    offsets : {'interleaved', 'grouped'}
    batch : int
        B sequences, each of a length of its own.
    dtype, device : str
    scale : float, optional
        Of the scores; ``1 / sqrt(D)`` by default.

    Attributes
    ----------
    seen : list of int
        Rows of each sequence so far.
    rows : CachedRows
        The sparse rows of each level's present segment: ``B * sum(H / share * ceil(w / r))`` keys
        and as many values of D elements, where neighbouring query heads `share` rows if they have
        one key head and one offset (``level.share``). Only a segment that never ends has as many
        as it needs so far, doubled when they do not suffice.
    """

    def __init__(
        self,
        segment_lengths: Sequence[int],
        dilation_rates: Sequence[int],
        *,
        num_heads: int,
        kv_heads: int,
        head_dim: int,
        offsets: str,
        batch: int,
        dtype: str,
        device: str,
        scale: float | None = None,
    ) -> None:
        super().__init__(batch)
        self._options: dict[str, Any] = {"offsets": offsets, "scale": scale}
        levels = tuple(
            CachedLevel.make(w, r, num_heads, kv_heads, offsets)
            for w, r in zip(segment_lengths, dilation_rates, strict=True)
        )
        self.rows = CachedRows(levels, batch=batch, head_dim=head_dim, dtype=dtype, device=device)

    def arrays(self) -> dict[str, Tensor]:
        """Return keys and values."""
        return {"keys": self.rows.keys, "values": self.rows.values}

    def make_room(self, positions: int) -> None:
        """Let segments that never end have so many rows."""
        self.rows.make_room(positions)

    def _attend_one(
        self, q: Tensor, k: Tensor, v: Tensor, before: Sequence[int], counts: Sequence[int]
    ) -> Tensor:
        """One row of each sequence that has one."""
        B, _, H, D = q.shape
        positions = tuple(a if count else -1 for a, count in zip(before, counts, strict=True))
        step = plan_step(self.rows.levels, positions, k.shape[2], q.device)
        self.rows.take(step, k, v)
        out = lse = None
        for i, lengths in step.lengths:
            level = self.rows.levels[i]
            queries = q.reshape(B * H // level.share, 1, level.share, D)
            part, part_lse = self._whole(level, causal=False).forward(
                queries, *self.rows.matrices(i), lengths=lengths, query_start=0
            )
            if out is None or lse is None:
                out, lse = cast_to(part, "float32").reshape(B, 1, H, D), part_lse.reshape(B, H, 1)
                continue
            part, part_lse = part.reshape(B * H, 1, D), part_lse.reshape(B * H, 1)
            ops.merge_rows(out, lse, part, part_lse, [0] * H, 1)
        return zeros(q.shape, q) if out is None else cast_to(out, q.dtype)

    def _attend_piece(self, b: int, before: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Rows (1, n, ...) of sequence b, of which `before` came earlier."""
        n = q.shape[1]
        ends: dict[int, list[int]] = {}  # levels by the row where a segment begun earlier ends
        for i, level in enumerate(self.rows.levels):
            ends.setdefault(min(n, -before % level.length), []).append(i)
        result = _Result(q)
        for end, levels in sorted(ends.items()):
            if end < n:
                result.merge(end, *self._attend_within(levels, q[:, end:], k[:, end:], v[:, end:]))
            if end > 0:
                part = result if end == n else _Result(q[:, :end])
                for i in levels:
                    place = before % self.rows.levels[i].length
                    self.rows.append(i, b, place, k[:, :end], v[:, :end])
                    self._attend_cached(i, b, place, q[:, :end], part)
                if part is not result:
                    result.merge(0, *part.sums)
            for i in levels:
                last = (before + n) % self.rows.levels[i].length  # rows of a segment that goes on
                if end < n and last:
                    self.rows.append(i, b, 0, k[:, n - last :], v[:, n - last :])
        return cast_to(result.sums[0], q.dtype)

    def _attend_within(
        self, indices: Sequence[int], q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Levels of which a segment begins with row 0: no earlier row is looked at."""
        levels = [self.rows.levels[i] for i in indices]
        lengths = [max(level.rate, min(level.length, q.shape[1])) for level in levels]
        rates = [level.rate for level in levels]
        return DilatedAttention(lengths, rates, **self._options).forward(q, k, v)

    def _attend_cached(self, i: int, b: int, place: int, q: Tensor, result: _Result) -> None:
        """Queries (1, n, H, D) from `place` on of a segment whose rows up to theirs are stored."""
        level, (_, n, H, D) = self.rows.levels[i], q.shape
        first, end = level.window(place, n)
        if first == end:
            return
        matrices, count, share = len(level.offsets), end - first, level.share
        starts = level.starts(place, first)
        compact = empty((matrices, count, share * D), q)
        ops.gather_rows(compact, q.reshape(1, n, matrices, share * D), starts, level.rate)
        part, lse = self._whole(level, causal=True).forward(
            compact.reshape(matrices, count, share, D),
            *self.rows.matrices(i, b),
            query_start=first,
        )
        by_head = empty((H, count, D), q)
        ops.gather_rows(by_head, part, [0] * share, 1)
        starts = [start for start in starts for _ in range(share)]
        result.merge_rows(by_head, lse.reshape(H, count), starts, level.rate)

    def _whole(self, level: CachedLevel, causal: bool) -> DilatedAttention:
        """Ordinary attention over the compact rows of a level."""
        return attention((level.rows,), (1,), causal, scale=self._options["scale"])


class _Result:
    """Output and LSE of queries (1, n, H, D), over the keys shown so far."""

    def __init__(self, q: Tensor) -> None:
        self._like = q
        self._sums: tuple[Tensor, Tensor] | None = None  # (1, n, H, D), (1, H, n); float32

    @property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The two; 0 and -inf for queries that have seen no key."""
        if self._sums is None:
            _, n, H, _ = self._like.shape
            lse = empty((1, H, n), self._like, "float32")
            ops.fill(lse, -np.inf)
            self._sums = zeros(self._like.shape, self._like, "float32"), lse
        return self._sums

    def merge(self, row: int, out: Tensor, lse: Tensor) -> None:
        """Add what the rows from `row` on see elsewhere: out (1, m, H, D), lse (1, H, m)."""
        if self._sums is None and out.shape == self._like.shape:
            self._sums = cast_to(out, "float32"), lse
            return
        _, m, H, D = out.shape
        by_head = empty((H, m, D), out)
        ops.gather_rows(by_head, out, [0] * H, 1)
        self.merge_rows(by_head, lse.reshape(H, m), [row] * H, 1)

    def merge_rows(self, part: Tensor, lse: Tensor, starts: list[int], step: int) -> None:
        """Add part (H, m, D), lse (H, m): rows `step` apart, from `starts` on."""
        ops.merge_rows(*self.sums, part, lse, starts, step)
