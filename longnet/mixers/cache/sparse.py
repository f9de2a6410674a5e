"""The cache of the Sparse Transformer's fixed pattern."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from longnet._core import Tensor, ops
from longnet.functional.buffers import cast_to, empty, zeros
from longnet.functional.fixed_rows import FixedPattern, FixedRows
from longnet.functional.sequences import Sequences, Span
from longnet.mixers.cache.base import Cache, look_back
from longnet.mixers.cache.level import Moves, split_moves
from longnet.mixers.cache.ring import Ring
from longnet.mixers.cache.rows import move_rows


class SparseCache(Cache):
    """The present block of each sequence, and the summary columns of every block so far: unlike
    those of windows and levels it grows with the length, by c rows of each head a block.

    Parameters
    ----------
    block, columns : int
        l and c.
    num_heads, kv_heads, head_dim : int
        H, Hk and D.
    batch : int
        B.
    dtype, device : str
    scale : float, optional
        Of the scores; ``1 / sqrt(D)`` by default.

    Attributes
    ----------
    seen : list of int
        Rows of each sequence so far.
    ring : Ring
        ``B * Hk * l`` keys and as many values of D elements.
    summary_keys, summary_values : Tensor (B * H, room * c, 1, D)
        Columns of block after block, 0 where they are still to come. There is room for the blocks
        of the longest sequence, ``ceil(n / l)``, rounded up to a power of two.
    """

    def __init__(
        self,
        block: int,
        columns: int,
        *,
        num_heads: int,
        kv_heads: int,
        head_dim: int,
        batch: int,
        dtype: str,
        device: str,
        scale: float | None = None,
    ) -> None:
        super().__init__(batch)
        self._pattern = FixedPattern(num_heads, block, columns)
        self._scale = scale
        self.ring = Ring(batch, block, kv_heads, head_dim, dtype, device)
        shape = (batch * num_heads, columns, 1, head_dim)
        self.summary_keys, self.summary_values = (zeros(shape, self.ring.keys) for _ in range(2))

    def arrays(self) -> dict[str, Tensor]:
        """Return keys and values."""
        return {
            "keys": self.ring.keys,
            "values": self.ring.values,
            "summary_keys": self.summary_keys,
            "summary_values": self.summary_values,
        }

    def make_room(self, positions: int) -> None:
        """Lay the columns out anew where there are more blocks than room."""
        block, columns = self._pattern.block, self._pattern.columns
        BH, rows, _, D = self.summary_keys.shape
        room = rows
        while room // columns * block < positions:
            room *= 2
        if room == rows:
            return
        larger = []
        for x in (self.summary_keys, self.summary_values):
            larger.append(empty((BH, room, D), x))
            ops.gather_rows(larger[-1], x, [0], 1)  # 0 past its end
        self.summary_keys, self.summary_values = (x.reshape(BH, room, 1, D) for x in larger)

    def _attend_one(
        self, q: Tensor, k: Tensor, v: Tensor, before: Sequence[int], counts: Sequence[int]
    ) -> Tensor:
        B, _, H, D = q.shape
        block, columns, rows = (
            self._pattern.block,
            self._pattern.columns,
            self.summary_keys.shape[1],
        )
        self.ring.put_one(k, v, before, counts)
        at = tuple(a if n else -1 for a, n in zip(before, counts, strict=True))
        moves = _plan_moves(self._pattern, rows, at, k.shape[2])
        move_rows(self.summary_keys, k, moves)
        move_rows(self.summary_values, v, moves)
        shown = [(a % block + 1) * n for a, n in zip(before, counts, strict=True)]
        out, lse = look_back(q, self.ring.keys, self.ring.values, shown, self._scale)
        earlier = [a // block * columns * n for a, n in zip(before, counts, strict=True)]
        if not any(earlier):
            return out
        part, part_lse = look_back(
            q.reshape(B * H, 1, 1, D),
            self.summary_keys,
            self.summary_values,
            np.repeat(earlier, H).tolist(),
            self._scale,
        )
        out = cast_to(out, "float32")
        part, part_lse = part.reshape(B * H, 1, D), part_lse.reshape(B * H, 1)
        ops.merge_rows(out, lse, part, part_lse, [0] * H, 1)
        return cast_to(out, q.dtype)

    def _attend_piece(self, b: int, before: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        pattern, end = self._pattern, before + q.shape[1]
        heads = slice(b * pattern.heads, (b + 1) * pattern.heads)
        columns = [self.summary_keys[heads], self.summary_values[heads]]
        begun = range(before // pattern.block, -(-end // pattern.block))
        for x, whole in zip((k, v), columns, strict=True):
            pattern.show(whole, begun, pattern.pack(x, before, begun))
        halo = before % pattern.block
        span = Span(Sequences(1, end), before - halo, before, end)
        rows = FixedRows(pattern, span, (slice(0, 1), 0, end), 0, {"scale": self._scale})
        out = zeros(q.shape, q)
        rows.forward(q, self.ring.before(b, before, halo, k, v), columns, out)
        self.ring.put(b, before, k, v)
        return out


@lru_cache(maxsize=64)  # the layers of a model ask for the same
def _plan_moves(
    pattern: FixedPattern, rows: int, positions: tuple[int, ...], kv_heads: int
) -> Moves:
    """Say which rows of keys (B, 1, Hk, D) at `positions` become columns, of which each head has
    `rows`; -1 for a sequence that gets none."""
    heads, block = pattern.heads, pattern.block
    sources: list[int] = []
    targets: list[int] = []
    for b, position in enumerate(positions):
        j, row = divmod(position, block)
        group, groups = pattern.group(row), block // pattern.columns
        for h in range(group, heads if position >= 0 and group < groups else 0, groups):
            column = row - (block - (group + 1) * pattern.columns)
            sources.append(b * kv_heads + h // (heads // kv_heads))
            targets.append((b * heads + h) * rows + j * pattern.columns + column)
    return split_moves(sources, targets)
