"""The cache of a sliding window."""

from __future__ import annotations

from collections.abc import Sequence

from longnet._core import Tensor
from longnet.functional.sequences import Sequences, Span
from longnet.functional.sliding import SlidingRows
from longnet.mixers.cache.base import Cache, attention, look_back
from longnet.mixers.cache.ring import Ring


class SlidingCache(Cache):
    """The last rows of each sequence, whatever the length so far.

    Parameters
    ----------
    window : int
        W, the rows that a query sees.
    kv_heads, head_dim : int
        Hk and D.
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
        ``B * Hk * W`` keys and as many values of D elements.
    """

    def __init__(
        self,
        window: int,
        *,
        kv_heads: int,
        head_dim: int,
        batch: int,
        dtype: str,
        device: str,
        scale: float | None = None,
    ) -> None:
        super().__init__(batch)
        self._window = window
        self._scale = scale
        self.ring = Ring(batch, window, kv_heads, head_dim, dtype, device)

    def arrays(self) -> dict[str, Tensor]:
        """Return keys and values."""
        return {"keys": self.ring.keys, "values": self.ring.values}

    def _attend_one(
        self, q: Tensor, k: Tensor, v: Tensor, before: Sequence[int], counts: Sequence[int]
    ) -> Tensor:
        self.ring.put_one(k, v, before, counts)
        shown = [min(a + 1, self._window) * n for a, n in zip(before, counts, strict=True)]
        return look_back(q, self.ring.keys, self.ring.values, shown, self._scale)[0]

    def _attend_piece(self, b: int, before: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        block, end = self._window - 1, before + q.shape[1]
        halo = min(before, block)
        rows = SlidingRows(
            attention((max(1, block),), (1,), True, scale=self._scale),
            block,
            Span(Sequences(1, end), before - halo, before, end),
        )
        out, _ = rows.forward(q, *self.ring.before(b, before, halo, k, v))
        self.ring.put(b, before, k, v)
        return out
