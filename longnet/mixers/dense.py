"""Ordinary attention: every query sees all keys up to its own position."""

from longnet.mixers import register
from longnet.mixers.attention import Attention, Levels


@register("dense")
class Dense(Attention):
    """Causal attention over the whole sequence: dilated attention of one level, w = N and r = 1."""

    def levels(self, N: int) -> Levels:
        """Return the one level that holds N rows."""
        return (N,), (1,)
