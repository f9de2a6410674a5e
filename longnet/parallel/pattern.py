"""What decides who sees whom in a sequence that ranks share."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Pattern:
    """What decides who sees whom, of the whole sequence; the same on every rank.

    Attributes
    ----------
    levels : tuple of (w, r)
    causal, zero_keys : bool
    offsets : str
        The rule of s(h).
    dropout : bool
        Whether levels need their own numbers.
    heads : int
        H.
    shards : tuple of int
        Rows of each rank, in rank order.
    lengths : tuple of int or None
        Rows that exist, a batch item each.
    cu_seqlens : tuple of int or None
        Where each document begins, and N.
    """

    levels: tuple[tuple[int, int], ...]
    causal: bool
    zero_keys: bool
    offsets: str
    dropout: bool
    heads: int
    shards: tuple[int, ...]
    lengths: tuple[int, ...] | None = None
    cu_seqlens: tuple[int, ...] | None = None

    @property
    def bounds(self) -> tuple[int, ...]:
        """First row of every rank, and N."""
        return tuple(accumulate(self.shards, initial=0))

    def head_offsets(self, r: int) -> tuple[int, ...]:
        """s(h) of every head on a level of rate r."""
        if self.offsets == "interleaved":
            return tuple(h % r for h in range(self.heads))
        return tuple(h // -(-self.heads // r) for h in range(self.heads))

    def document(self, row: int) -> tuple[int, tuple[int, ...]] | None:
        """First row of the document of `row`, and its end for each batch item (one end where all
        have the same); None where no batch item has such a row."""
        if self.cu_seqlens is not None:
            at = bisect_right(self.cu_seqlens, row)
            return self.cu_seqlens[at - 1], (self.cu_seqlens[at],)
        ends = self.lengths or (sum(self.shards),)
        return (0, ends) if row < max(ends) else None
