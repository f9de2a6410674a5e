"""One sequence over many ranks: exact dilated attention, and what it sends (docs/parallel.md)."""

from longnet.parallel.attention import backward, forward
from longnet.parallel.pattern import Pattern
from longnet.parallel.plan import Plan, bytes_received, make_plan

__all__ = ["Pattern", "Plan", "backward", "bytes_received", "forward", "make_plan"]
