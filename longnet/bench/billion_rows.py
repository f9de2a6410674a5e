"""Rows of a sequence that anybody can make, and attention of single rows of it in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.parallel import Generated

BLOCK = 1 << 14  # rows that are drawn under one seed
NAMES = "q", "k", "v"


class Rows:
    """q, k and v (1, N, H, D) in bfloat16: normal numbers, a block of `BLOCK` rows from a seed.

    Every piece, rank and device's kind has the same rows, whoever asks for whichever of them.
    """

    def __init__(self, heads: int, head_dim: int, device: str, seed: int = 0) -> None:
        self.heads = heads
        self.head_dim = head_dim
        self.device = device
        self.seed = seed

    def make(self, name: str, begin: int, end: int) -> Tensor:
        """Rows [begin, end) of q, k or v."""
        rows = self._empty(end - begin)
        for block in range(begin // BLOCK, -(-end // BLOCK)):
            first, last = max(begin, block * BLOCK), min(end, (block + 1) * BLOCK)
            inside = rows[:, first - begin : last - begin]
            if last - first == BLOCK:
                self._draw(inside, name, block)
            else:
                whole = self._empty(BLOCK)
                self._draw(whole, name, block)
                part = whole[:, first - block * BLOCK : last - block * BLOCK]
                ops.cast(inside, part)
        return rows

    def part(self, name: str, begin: int, end: int) -> Generated:
        """Rows [begin, end) as a sequence."""

        def make(first: int, last: int) -> Tensor:
            return self.make(name, begin + first, begin + last)

        return Generated((1, end - begin, self.heads, self.head_dim), "bfloat16", make)

    def of_head(self, name: str, head: int, rows: range) -> np.ndarray:
        """Single rows of a head (len(rows), D) in float64."""
        found = []
        for block, inside in _by_block(rows):
            whole = self._empty(BLOCK)
            self._draw(whole, name, block)
            part = Tensor.empty((self.heads, len(inside), self.head_dim), "bfloat16", self.device)
            ops.gather_rows(part, whole, [inside[0]] * self.heads, rows.step)
            found.append(part[head].to("cpu").numpy())
        return np.concatenate(found).astype(np.float64)

    def _empty(self, rows: int) -> Tensor:
        return Tensor.empty((1, rows, self.heads, self.head_dim), "bfloat16", self.device)

    def _draw(self, block: Tensor, name: str, number: int) -> None:
        ops.normal(block, 0.0, 1.0, self.seed + 3 * number + NAMES.index(name))


def _by_block(rows: range) -> Iterator[tuple[int, range]]:
    """The blocks that rows fall into, and the rows counted from the block's first."""
    while rows:
        block = rows[0] // BLOCK
        count = len(range(rows[0], min((block + 1) * BLOCK, rows[-1] + 1), rows.step))
        first = rows[0] - block * BLOCK
        yield block, range(first, first + (count - 1) * rows.step + 1, rows.step)
        rows = rows[count:]


def sampled_rows(N: int, rate: int, heads: int, count: int) -> list[tuple[int, int]]:
    """Rows over the whole length and a head of each: every other one on all levels of its head up
    to rate `rate`, the last row among the others."""
    rng = np.random.default_rng(0)
    found = [(N - 1, int(rng.integers(heads)))]
    for i in range(1, count):
        row, head = (
            int(rng.integers(N * i // count, N * (i + 1) // count)),
            int(rng.integers(heads)),
        )
        if i % 2:
            row = min(row // rate * rate + head % rate, N - 1)
        found.append((row, head))
    return found


def exact_row(rows: Rows, attention: DilatedAttention, row: int, head: int) -> np.ndarray:
    """Causal attention of one row and head (D,), from the definition, in float64."""
    q = rows.of_head("q", head, range(row, row + 1))[0]
    scores, values = [], []
    for w, r in zip(attention.segment_lengths, attention.dilation_rates, strict=True):
        start = row // w * w + head % r
        if row >= start and (row - start) % r == 0:
            keys = range(start, row + 1, r)
            scores.append(rows.of_head("k", head, keys) @ q / np.sqrt(rows.head_dim))
            values.append(rows.of_head("v", head, keys))
    score, value = np.concatenate(scores), np.concatenate(values)
    weight = np.exp(score - score.max())
    return weight @ value / weight.sum()


@dataclass
class Errors:
    """How far rows are from exact ones: the worst element relative to its row's largest, and the
    root mean square relative to that of its row."""

    worst: float
    mean: float

    @classmethod
    def of(cls, found: np.ndarray, exact: np.ndarray) -> Errors:
        """Of one row (D,)."""
        off, square = np.abs(found.astype(np.float64) - exact), np.square
        return cls(
            float(off.max() / np.abs(exact).max()),
            float(np.sqrt(square(off).mean() / square(exact).mean())),
        )

    @classmethod
    def together(cls, rows: Sequence[Errors]) -> Errors:
        """Of several rows."""
        squares = [row.mean**2 for row in rows]
        return cls(max(row.worst for row in rows), float(np.sqrt(np.mean(squares))))


def rounded(exact: np.ndarray) -> np.ndarray:
    """A row in bfloat16."""
    found = Tensor.empty(exact.shape, "bfloat16")
    ops.cast(found, exact.astype(np.float32))
    return found.numpy()
