"""Sequences in parts: over many ranks (docs/parallel.md), or piece by piece (docs/streaming.md)."""

from longnet.parallel.arrays import Generated
from longnet.parallel.attention import backward, forward
from longnet.parallel.mesh import Mesh, shard
from longnet.parallel.pattern import Pattern
from longnet.parallel.plan import Plan, bytes_received, make_plan
from longnet.parallel.stream_memory import stream_bytes
from longnet.parallel.streaming import stream

__all__ = [
    "Generated",
    "Mesh",
    "Pattern",
    "Plan",
    "backward",
    "bytes_received",
    "forward",
    "make_plan",
    "shard",
    "stream",
    "stream_bytes",
]
