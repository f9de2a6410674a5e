"""What attention keeps of the rows it has seen.

A query sees keys of its own segments only, so the rest may be forgotten: sum(w / r) rows a head,
whatever the length so far. A window's cache is as long as the window; the fixed pattern's grows.
"""

from longnet.mixers.cache.attention import AttentionCache
from longnet.mixers.cache.base import Cache
from longnet.mixers.cache.level import UNBOUNDED, CachedLevel
from longnet.mixers.cache.sliding import SlidingCache
from longnet.mixers.cache.sparse import SparseCache

__all__ = ["UNBOUNDED", "AttentionCache", "Cache", "CachedLevel", "SlidingCache", "SparseCache"]
