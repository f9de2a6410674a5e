"""Ordinary attention: every query sees all keys up to its own position."""

from longnet.mixers import register
from longnet.mixers.attention import Attention


@register("dense")
class Dense(Attention):
    """Causal attention over the whole sequence: dilated attention of one level, w = N and r = 1."""
