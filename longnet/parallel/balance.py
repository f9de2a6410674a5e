"""Shards of a sequence on which attention takes equally long."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from longnet._core import DilatedAttention
from longnet.arguments import integer
from longnet.errors import ConfigError
from longnet.parallel.mesh import shard


def balanced_shards(
    attention: DilatedAttention, N: int, heads: int, ranks: int, *, multiple: int = 1
) -> list[tuple[int, int]]:
    """Rows of each rank such that all have about as many (query, key) pairs.

    Causal attention has more keys at the end of a segment than at its beginning, so of a segment
    that ranks share the later ones have more work than the earlier ones. Here they have fewer rows.

    Parameters
    ----------
    attention : DilatedAttention
    N : int
        Rows of the sequence.
    heads : int
        H, the number of query heads.
    ranks : int
    multiple : int
        Shards begin at multiples of this many rows: the segment length of levels that are not to
        cross from rank to rank, or the rows of a piece.

    Returns
    -------
    list of (int, int)
        Rows [begin, end) of each rank, in order. Equal shards where attention is bidirectional.

    Raises
    ------
    ConfigError
        A number is out of range.
    """
    ranks, multiple = integer("ranks", ranks), integer("multiple", multiple)
    for name, number in (("ranks", ranks), ("multiple", multiple)):
        if number < 1:
            raise ConfigError(f"{name}: found {number}, expected 1 or more")
    pieces = -(-N // multiple)
    if attention.causal:

        def pairs(piece: int) -> int:
            # The first rows have the pairs of a sequence that ends after them.
            return ranks * attention.pairs(min(piece * multiple, N), heads)

        total = attention.pairs(N, heads)
        inner = [bisect_left(range(pieces), total * i, key=pairs) for i in range(1, ranks)]
        ends = [0, *inner, pieces]
    else:
        ends = [0, *(shard(pieces, ranks, rank)[1] for rank in range(ranks))]
    rows = [min(end * multiple, N) for end in ends]
    return list(pairwise(rows))
