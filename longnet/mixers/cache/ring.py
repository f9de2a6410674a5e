"""The last rows of each sequence of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from longnet._core import Tensor, ops
from longnet.functional.buffers import empty
from longnet.functional.shard import put_rows


class Ring:
    """Keys and values of so many rows: row n of a sequence lies at n mod size.

    Parameters
    ----------
    batch, size, kv_heads, head_dim : int
    dtype, device : str

    Attributes
    ----------
    keys, values : Tensor (B, size, Hk, D)
        0 where nothing has been put yet.
    """

    def __init__(
        self, batch: int, size: int, kv_heads: int, head_dim: int, dtype: str, device: str
    ) -> None:
        shape = (batch, size, kv_heads, head_dim)
        self.keys, self.values = (Tensor.empty(shape, dtype, device) for _ in range(2))
        ops.fill(self.keys, 0.0)
        ops.fill(self.values, 0.0)

    def put(self, b: int, row: int, k: Tensor, v: Tensor) -> None:
        """Store the rows from `row` on of sequence b: k and v (1, n, Hk, D)."""
        size, n = self.keys.shape[1], k.shape[1]
        for first, at, count in _runs(size, row + n - min(n, size), row + n):
            rows = slice(first - row, first - row + count)
            for x, ring in ((k, self.keys), (v, self.values)):
                put_rows(ring[b : b + 1], at, x[:, rows])

    def put_one(self, k: Tensor, v: Tensor, rows: Sequence[int], counts: Sequence[int]) -> None:
        """Store one row of each sequence that has one: k and v (B, 1, Hk, D)."""
        for b, (row, count) in enumerate(zip(rows, counts, strict=True)):
            if count:
                self.put(b, row, k[b : b + 1], v[b : b + 1])

    def before(self, b: int, row: int, count: int, k: Tensor, v: Tensor) -> list[Tensor]:
        """Return k and v (1, n, Hk, D), the rows from `row` on of sequence b, with the `count` rows
        before them."""
        if count == 0:
            return [k, v]
        found = []
        for x, ring in ((k, self.keys), (v, self.values)):
            whole = empty((1, count + x.shape[1], *x.shape[2:]), x)
            for first, at, n in _runs(ring.shape[1], row - count, row):
                put_rows(whole, first - (row - count), ring[b : b + 1, at : at + n])
            put_rows(whole, count, x)
            found.append(whole)
        return found


def _runs(size: int, begin: int, end: int) -> list[tuple[int, int, int]]:
    """Rows that lie one after another in a ring: the first, its place, and how many."""
    runs = []
    while begin < end:
        at = begin % size
        count = min(end - begin, size - at)
        runs.append((begin, at, count))
        begin += count
    return runs
