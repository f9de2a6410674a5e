"""The fixed pattern of the Sparse Transformer, composed of causal attention over packed keys."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.autograd import Variable, record
from longnet.functional.buffers import cast_to, empty, zeros
from longnet.functional.sequences import sequences
from longnet.kept import keep
from longnet.random import derive_seed


def fixed_attention(
    q: Variable,
    k: Variable,
    v: Variable,
    block: int,
    columns: int,
    *,
    lengths: np.ndarray | Tensor | None = None,
    cu_seqlens: np.ndarray | Tensor | None = None,
    seed: int = 0,
    **options: Any,
) -> Variable:
    r"""Causal attention to the query's own block and to summary columns of the blocks before it.

    The "fixed" pattern of Child et al. (arXiv 1904.10509, section 4.3) with both of its sets in
    each head: query i sees the keys j <= i with

    .. math:: \lfloor j / l \rfloor = \lfloor i / l \rfloor \quad\text{or}\quad
        l - (g + 1) c \le j \bmod l < l - g c

    where l is `block`, c is `columns`, and head h has :math:`g = h \bmod \lfloor l / c \rfloor`: as
    there, heads have summary columns of their own.

    Parameters
    ----------
    q : Variable (B, N, H, D)
    k, v : Variable (B, N, Hk, D)
        H a multiple of Hk.
    block, columns : int
        l, and c from 1 to l.
    lengths : array (B,) int64, optional
        Rows that exist; outputs past them are 0.
    cu_seqlens : array (S+1,) int64, optional
        Where documents packed end to end begin, and N; blocks begin anew there. Needs B = 1.
    seed : int
        Of dropout.
    **options
        `scale`, `dropout` and `deterministic`, as `DilatedAttention` takes them.

    Returns
    -------
    Variable (B, N, H, D)
    """
    H = q.shape[2]
    found = sequences(q.data, lengths, cu_seqlens)
    parts = [_Sequence(*where, H, block, columns) for where in found if where[2] > where[1]]
    seeds = [derive_seed(seed, i) for i in range(len(parts))]
    data = q.data, k.data, v.data

    def forward() -> tuple[Tensor, ...]:
        out, lses = zeros(q.shape, q.data), []
        for part, part_seed in zip(parts, seeds, strict=True):
            keys, values = (_Keys(part, x[part.items]) for x in data[1:])
            for j in range(part.blocks):
                own, lse = part.attention(j, options).forward(
                    part.queries(j, data[0]), keys.seen_by(j), values.seen_by(j),
                    query_start=j * columns, seed=derive_seed(part_seed, j),
                )  # fmt: skip
                part.add_queries(j, out, own)
                lses.append(lse)
        return out, *lses

    out, *lses = keep(forward)

    def backward(dout: Tensor) -> list[Tensor]:
        # Keys get gradients of many blocks: their sum is in float32.
        gradients = [zeros(x.shape, x, "float32") for x in data]
        rest = iter(lses)
        for part, part_seed in zip(parts, seeds, strict=True):
            inputs = [_Keys(part, x[part.items]) for x in data[1:]]
            sums = [_KeyGradients(part, x[part.items]) for x in data[1:]]
            for j in range(part.blocks):
                dout_j, q_j, out_j = (part.queries(j, x) for x in (dout, data[0], out))
                k_j, v_j = (x.seen_by(j) for x in inputs)
                dq_j, *others = part.attention(j, options).backward(
                    dout_j, q_j, k_j, v_j, out_j, next(rest),
                    query_start=j * columns, seed=derive_seed(part_seed, j),
                )  # fmt: skip
                part.add_queries(j, gradients[0], dq_j)
                for total, gradient in zip(sums, others, strict=True):
                    total.add(j, gradient)
            for x, total in zip(gradients[1:], sums, strict=True):
                total.add_to(x[part.items])
        return [cast_to(x, q.dtype) for x in gradients]

    return record(out, [q, k, v], backward)


@dataclass(frozen=True)
class _Sequence:
    """Rows [begin, end) of some batch items, n together, and the pattern on them."""

    items: slice
    begin: int
    end: int
    heads: int
    block: int
    columns: int

    @property
    def rows(self) -> int:
        return self.end - self.begin

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block)

    @property
    def run(self) -> int:
        """Rows that are moved as one: the columns of a block are a whole number of runs."""
        return gcd(self.rows, self.block, self.columns)

    def block_rows(self, j: int) -> int:
        """How many rows block j has."""
        return min(self.block, self.rows - j * self.block)

    def attention(self, j: int, options: dict[str, Any]) -> DilatedAttention:
        """What the queries of block j do to the keys that `_Keys.seen_by` gives."""
        return DilatedAttention([j * self.columns + self.block_rows(j)], [1], **options)

    def queries(self, j: int, x: Tensor) -> Tensor:
        """The rows of block j of x (B, N, H, D), as (B H, rows, 1, D)."""
        x = x[self.items]
        rows = empty((x.shape[0] * self.heads, self.block_rows(j), x.shape[3]), x)
        ops.gather_rows(rows, x, [self.begin + j * self.block] * self.heads, 1)
        return rows.reshape(*rows.shape[:2], 1, rows.shape[2])

    def add_queries(self, j: int, x: Tensor, rows: Tensor) -> None:
        """Add what `queries` would give to x (B, N, H, D)."""
        rows = rows.reshape(rows.shape[0], rows.shape[1], rows.shape[3])
        ops.add_rows(x[self.items], rows, [self.begin + j * self.block] * self.heads, 1)

    def summary_starts(self, items: int) -> list[int]:
        """Where the runs of the first block's columns lie, of all heads, one after another."""
        groups, run = self.block // self.columns, self.run
        starts: list[int] = []
        for i in range(items * self.heads):
            first = self.block - (i % self.heads % groups + 1) * self.columns
            starts += range(i * self.rows + first, i * self.rows + first + self.columns, run)
        return [start // run for start in starts]


class _Keys:
    """Keys or values, head by head: all rows of a sequence, and its summary columns."""

    def __init__(self, part: _Sequence, x: Tensor) -> None:
        B, _, _, D = x.shape
        self._part = part
        self._rows = empty((B * part.heads, part.rows, D), x)
        ops.gather_rows(self._rows, x, [part.begin] * part.heads, 1)
        starts, run = part.summary_starts(B), part.run
        self._columns = empty((len(starts), part.blocks - 1, run * D), x)
        by_run = self._rows.reshape(1, -1, 1, run * D)
        ops.gather_rows(self._columns, by_run, starts, part.block // run)

    def seen_by(self, j: int) -> Tensor:
        """The columns of the blocks before j, and the rows of block j: (B H, M, 1, D)."""
        part, (BH, _, D) = self._part, self._rows.shape
        count, own = j * part.columns, part.block_rows(j)
        seen = zeros((BH, count + own, 1, D), self._rows)
        if j:
            columns = self._columns[:, :j].copy().reshape(BH, count, D)
            ops.add_rows(seen, columns, [0], 1)
        rows = self._rows[:, j * part.block : j * part.block + own].copy()
        ops.add_rows(seen, rows, [count], 1)
        return seen


class _KeyGradients:
    """The gradients of `_Keys`, as those of the blocks add to them."""

    def __init__(self, part: _Sequence, x: Tensor) -> None:
        B, _, _, D = x.shape
        self._part = part
        self._starts = part.summary_starts(B)
        self._rows = zeros((B * part.heads, part.rows, 1, D), x, "float32")
        shape = (len(self._starts), part.blocks - 1, 1, part.run * D)
        self._columns = zeros(shape, x, "float32")

    def add(self, j: int, gradient: Tensor) -> None:
        """Take in that of ``seen_by(j)``."""
        part, (BH, _, _, D) = self._part, gradient.shape
        count = j * part.columns
        rows = empty((BH, part.block_rows(j), D), gradient)
        ops.gather_rows(rows, gradient, [count], 1)
        ops.add_rows(self._rows, rows, [j * part.block], 1)
        if j:
            columns = empty((BH, count, D), gradient)
            ops.gather_rows(columns, gradient, [0], 1)
            columns = columns.reshape(len(self._starts), j, part.run * D)
            ops.add_rows(self._columns, columns, [0], 1)

    def add_to(self, x: Tensor) -> None:
        """Add all to x (B, N, Hk, D)."""
        part, (BH, _, _, D) = self._part, self._rows.shape
        shape = (len(self._starts), part.blocks - 1, part.run * D)
        by_run = self._rows.reshape(1, -1, 1, part.run * D)
        ops.add_rows(by_run, self._columns.reshape(shape), self._starts, part.block // part.run)
        rows = self._rows.reshape(BH, part.rows, D)
        ops.add_rows(x, rows, [part.begin] * part.heads, 1)
