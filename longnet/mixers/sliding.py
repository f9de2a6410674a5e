"""A sliding window: every query sees the last few keys."""

from typing import Any

from longnet import functional as F
from longnet.autograd import Variable
from longnet.communicator import Communicator
from longnet.mixers import register
from longnet.mixers.attention import Attention
from longnet.mixers.cache import SlidingCache


@register("sliding")
class Sliding(Attention):
    """Causal attention to the last `window` keys of the configuration."""

    @property
    def window(self) -> int:
        """Keys that a query sees, its own row's among them."""
        return self.config.window or self.config.levels(self.layer)[0][0]

    def pairs(self, N: int) -> int:
        """Count the pairs of a query and a key of all heads, for N rows."""
        full = min(N, self.window)
        return self.config.num_heads * (full * (full + 1) // 2 + (N - full) * full)

    def attend(
        self,
        q: Variable,
        k: Variable,
        v: Variable,
        total: int,
        comm: Communicator | None,
        **options: Any,
    ) -> Variable:
        """Attention of the queries to their windows."""
        return F.sliding_attention(q, k, v, self.window, comm=comm, **options)

    def cache(self, batch: int, dtype: str, device: str) -> SlidingCache:
        """Return the cache of `batch` sequences: their last `window` rows."""
        return SlidingCache(
            self.window,
            kv_heads=self.config.kv_heads,
            head_dim=self.head_width,
            scale=self.scale,
            batch=batch,
            dtype=dtype,
            device=device,
        )
