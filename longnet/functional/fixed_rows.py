"""The fixed pattern on the rows of one sequence, composed of causal attention over packed keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.functional.buffers import empty, zeros
from longnet.functional.sequences import Span
from longnet.random import derive_seed

Entry = tuple[slice, int, int]  # batch items and the rows [begin, end) of their sequence


@dataclass(frozen=True)
class FixedPattern:
    """Blocks of so many rows, and so many summary columns of each for every head.

    Attributes
    ----------
    heads, block, columns : int
        H, l and c.
    """

    heads: int
    block: int
    columns: int

    def group(self, row: int) -> int:
        """Return g of the heads h, ``h mod (l // c) == g``, that have a row of a block as a column,
        if there are any."""
        return (self.block - 1 - row) // self.columns

    def pack(self, x: Tensor, row: int, blocks: range) -> Tensor:
        """Return the summary columns of blocks, 0 where `x` does not have them.

        Parameters
        ----------
        x : Tensor (B, L, Hk, D)
        row : int
            Row of the sequence that row 0 of `x` is.
        blocks : range

        Returns
        -------
        Tensor (len(blocks), B * H, c, D)
        """
        B, _, _, D = x.shape
        packed = empty((len(blocks), B * self.heads, self.columns, D), x)
        for at, j in enumerate(blocks):
            ops.gather_rows(packed[at], x, self._starts(j, row), 1)
        return packed

    def add(self, x: Tensor, row: int, blocks: range, packed: Tensor) -> None:
        """Add what `pack` would give to `x`."""
        for at, j in enumerate(blocks):
            ops.add_rows(x, packed[at], self._starts(j, row), 1)

    def show(self, columns: Tensor, blocks: range, packed: Tensor) -> None:
        """Add packed columns to all columns side by side (B * H, M, 1, D)."""
        for at, j in enumerate(blocks):
            ops.add_rows(columns, packed[at], [j * self.columns], 1)

    def take(self, columns: Tensor, blocks: range) -> Tensor:
        """Return what `show` would add."""
        BH, _, _, D = columns.shape
        packed = empty((len(blocks), BH, self.columns, D), columns)
        for at, j in enumerate(blocks):
            ops.gather_rows(packed[at], columns, [j * self.columns], 1)
        return packed

    def _starts(self, j: int, row: int) -> list[int]:
        """Where the columns of block j begin on each head."""
        end, groups = (j + 1) * self.block - row, self.block // self.columns
        return [end - (h % groups + 1) * self.columns for h in range(self.heads)]


@dataclass(frozen=True)
class FixedRows:
    """The rows that a span has of one sequence, or of several alike.

    Attributes
    ----------
    pattern : FixedPattern
    span : Span
        Its `first` is at the latest where the block of `begin` begins.
    entry : (slice, int, int)
    seed : int
        Of dropout.
    options : dict
        Of `DilatedAttention`.
    """

    pattern: FixedPattern
    span: Span
    entry: Entry
    seed: int
    options: dict[str, Any]

    def forward(
        self, q: Tensor, keys: Sequence[Tensor], columns: Sequence[Tensor], out: Tensor
    ) -> list[Tensor]:
        """Add the output of the span's queries to `out`.

        Parameters
        ----------
        q : Tensor (B, end - begin, H, D)
            Of the span.
        keys : sequence of Tensor (B, end - first, Hk, D)
            Keys and values.
        columns : sequence of Tensor (B * H, M, 1, D)
            Those of the sequence's earlier blocks, of keys and values.
        out : Tensor (B, end - begin, H, D)
            0 for these queries.

        Returns
        -------
        list of Tensor
            The LSE of each block.
        """
        lses = []
        for part in self.parts():
            seen = (self._seen(part, x, own) for x, own in zip(keys, columns, strict=True))
            found, lse = self._attention(part).forward(
                self._queries(part, q), *seen, **self._place(part)
            )
            self._add_queries(part, out, found)
            lses.append(lse)
        return lses

    def backward(
        self,
        queries: Sequence[Tensor],
        keys: Sequence[Tensor],
        columns: Sequence[Tensor],
        lses: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> list[Tensor]:
        """Add the gradients of queries, keys and values to `gradients`, in float32.

        Parameters
        ----------
        queries : sequence of Tensor (B, end - begin, H, D)
            The gradient of the output, q, and the output.
        keys, columns, lses
            What `forward` had and gave.
        gradients : sequence of Tensor
            Like q and the keys, float32.

        Returns
        -------
        list of Tensor (B * H, M, 1, D) float32
            Those of the columns.
        """
        sums = [zeros(x.shape, x, "float32") for x in columns]
        for part, lse in zip(self.parts(), lses, strict=True):
            dout, q, out = (self._queries(part, x) for x in queries)
            k, v = (self._seen(part, x, own) for x, own in zip(keys, columns, strict=True))
            dq, *others = self._attention(part).backward(
                dout, q, k, v, out, lse, **self._place(part), dtype="float32"
            )
            self._add_queries(part, gradients[0], dq)
            for x, own, gradient in zip(gradients[1:], sums, others, strict=True):
                self._add_seen(part, x, own, gradient)
        return sums

    def parts(self) -> Iterator[_Part]:
        """Blocks in which the span has queries."""
        _, first, last = self.entry
        start, stop = max(first, self.span.begin), min(last, self.span.end)
        block, columns = self.pattern.block, self.pattern.columns
        while start < stop:
            j = (start - first) // block
            row = first + j * block
            end = min(row + block, stop)
            yield _Part(j, row, start, end, j * columns)
            start = end

    def _attention(self, part: _Part) -> DilatedAttention:
        return DilatedAttention([part.count + part.rows], [1], **self.options)

    def _place(self, part: _Part) -> dict[str, Any]:
        return {
            "query_start": part.count + part.begin - part.row,
            "seed": derive_seed(self.seed, part.number),
        }

    def _queries(self, part: _Part, x: Tensor) -> Tensor:
        """A block's queries of x (B, end - begin, H, D), as (B * H, rows, 1, D)."""
        return self._gather(x, part.begin - self.span.begin, part.end - part.begin)

    def _add_queries(self, part: _Part, x: Tensor, rows: Tensor) -> None:
        """Add what `_queries` would give to x."""
        self._add(x, part.begin - self.span.begin, rows.reshape(*rows.shape[:2], rows.shape[3]))

    def _seen(self, part: _Part, x: Tensor, columns: Tensor) -> Tensor:
        """The columns of the blocks before, and the rows of the block: (B * H, M, 1, D)."""
        own = self._gather(x, part.row - self.span.first, part.rows)
        if not part.count:
            return own
        BH, rows, _, D = own.shape
        seen = zeros((BH, part.count + rows, 1, D), x)
        earlier = empty((BH, part.count, D), x)
        ops.gather_rows(earlier, columns, [0], 1)
        ops.add_rows(seen, earlier, [0], 1)
        ops.add_rows(seen, own.reshape(BH, rows, D), [part.count], 1)
        return seen

    def _add_seen(self, part: _Part, x: Tensor, columns: Tensor, gradient: Tensor) -> None:
        """Add the gradient of what `_seen` gives to x and the columns."""
        BH, _, _, D = gradient.shape
        own, earlier = (empty((BH, n, D), gradient) for n in (part.rows, part.count))
        ops.gather_rows(own, gradient, [part.count], 1)
        self._add(x, part.row - self.span.first, own)
        if part.count:
            ops.gather_rows(earlier, gradient, [0], 1)
            ops.add_rows(columns, earlier, [0], 1)

    def _gather(self, x: Tensor, at: int, count: int) -> Tensor:
        """Rows of x (B, N, Hx, D) from `at` on, a head of queries each: (B * H, count, 1, D)."""
        x = x[self.entry[0]]
        rows = empty((x.shape[0] * self.pattern.heads, count, x.shape[3]), x)
        ops.gather_rows(rows, x, [at] * self.pattern.heads, 1)
        return rows.reshape(*rows.shape[:2], 1, rows.shape[2])

    def _add(self, x: Tensor, at: int, rows: Tensor) -> None:
        """Add rows (B * H, count, D) to those of x from `at` on."""
        ops.add_rows(x[self.entry[0]], rows, [at] * self.pattern.heads, 1)


@dataclass(frozen=True)
class _Part:
    """Queries [begin, end) in block `number`, which begins with `row`; they may look at so many
    columns as `count` says."""

    number: int
    row: int
    begin: int
    end: int
    count: int

    @property
    def rows(self) -> int:
        """Rows of the block up to the last query."""
        return self.end - self.row
