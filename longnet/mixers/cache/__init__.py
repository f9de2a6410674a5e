"""What attention keeps of the rows it has seen: each level's sparse rows of the present segment.

A query sees keys of its own segments only, so the rest may be forgotten: sum(w / r) rows a head,
whatever the length so far.
"""

from longnet.mixers.cache.attention import AttentionCache
from longnet.mixers.cache.level import UNBOUNDED, CachedLevel

__all__ = ["UNBOUNDED", "AttentionCache", "CachedLevel"]
