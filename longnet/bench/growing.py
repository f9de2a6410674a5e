"""Levels that reach over a whole sequence, however long, with the same work for every token."""

from __future__ import annotations

WINDOW = 2048  # w / r of every level, and the shortest w
GROWTH = 4


def growing_levels(tokens: int) -> tuple[list[int], list[int]]:
    """Segment lengths that grow by `GROWTH` from `WINDOW`, the last one all tokens; their rates."""
    lengths = [min(WINDOW, tokens)]
    while lengths[-1] < tokens:
        lengths.append(min(lengths[-1] * GROWTH, tokens))
    return lengths, [max(1, w // WINDOW) for w in lengths]
