"""Crossing segments: their rows side by side, and attention there.

A compact tensor is (B*H, M, 1, D): the rows of one segment that take part, one head a batch item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longnet._core import DilatedAttention, Tensor, ops
from longnet.communicator import Communicator
from longnet.parallel.crossing import Crossing
from longnet.parallel.plan import Plan


@dataclass(frozen=True)
class Shard:
    """One rank's part of a call: its pattern, its plan and the ranks it talks to."""

    attention: DilatedAttention
    comm: Communicator
    plan: Plan
    batch: int
    heads: int
    seed: int

    def gather(self, crossing: Crossing, x: Tensor) -> Tensor:
        """Return the shard's rows of x (B, N, Hx, D) as a compact tensor, or of an LSE (B, H, N) as
        (B*H, M)."""
        me = self.plan.rank
        shape = (self.batch * self.heads, crossing.rows(me))
        width = x.shape[3] if x.ndim == 4 else None
        out = Tensor.empty(shape if width is None else (*shape, width), x.dtype, x.device)
        ops.gather_rows(out, x, crossing.starts(me, self.plan.begin), crossing.step)
        return out if width is None else out.reshape(*shape, 1, width)

    def clear(self, crossing: Crossing, x: Tensor, first: int, value: float = 0.0) -> None:
        """With keys of zeros, fill the compact rows (B*H, M, ...) from `first` on that no real row
        stands for: they lie within the op's lengths."""
        if crossing.zeros:
            for at, count in enumerate(self.table(crossing.counts)):
                if count - first < x.shape[1]:
                    ops.fill(x[at, max(0, count - first) :], value)

    def table(self, numbers: tuple[int, ...]) -> list[int]:
        """A crossing segment's numbers for every (b, h)."""
        size = self.batch * self.heads
        return list(numbers) * (size // len(numbers))

    def compact_attention(self, crossing: Crossing) -> tuple[DilatedAttention, dict[str, Any]]:
        """Return ordinary attention over the compact rows, and the options of its calls."""
        like, rows = self.attention, crossing.keys + max(crossing.zeros, default=0)
        attention = with_levels(like, [rows], [1])
        options: dict[str, Any] = {
            "query_start": crossing.windows[self.plan.rank][0],
            "dropout_origin": (crossing.start, crossing.level),
            "seed": self.seed,
        }
        if crossing.zeros or min(crossing.counts) < crossing.keys:
            extra = crossing.zeros or (0,) * len(crossing.counts)
            lengths = [min(n + z, rows) for n, z in zip(crossing.counts, extra, strict=True)]
            options["lengths"] = np.array(self.table(tuple(lengths)), np.int64)
        return attention, options


def with_levels(
    like: DilatedAttention,
    segment_lengths: Sequence[int],
    dilation_rates: Sequence[int],
    **changes: Any,
) -> DilatedAttention:
    """Return attention on other levels, with `offsets` and `zero_keys` as `changes`
    gives them, and like `like` in all else."""
    return DilatedAttention(
        segment_lengths,
        dilation_rates,
        like.causal,
        gradient=like.gradient,
        scale=like.scale,
        dropout=like.dropout,
        deterministic=like.deterministic,
        **changes,
    )


def zeros(shape: tuple[int, ...], dtype: str, device: str) -> Tensor:
    """Return a tensor of zeros."""
    x = Tensor.empty(shape, dtype, device)
    ops.fill(x, 0.0)
    return x
