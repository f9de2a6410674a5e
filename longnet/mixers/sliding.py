"""A sliding window: every query sees the last few keys."""

from typing import Any

from longnet import functional as F
from longnet.autograd import Variable
from longnet.mixers import register
from longnet.mixers.whole import WholeAttention


@register("sliding")
class Sliding(WholeAttention):
    """Causal attention to the last `window` keys of the configuration."""

    @property
    def window(self) -> int:
        """Keys that a query sees, its own row's among them."""
        return self.config.window or self.config.levels(self.layer)[0][0]

    def pairs(self, N: int) -> int:
        """Count the pairs of a query and a key of all heads, for N rows."""
        full = min(N, self.window)
        return self.config.num_heads * (full * (full + 1) // 2 + (N - full) * full)

    def attend_whole(self, q: Variable, k: Variable, v: Variable, **options: Any) -> Variable:
        """Attention of the queries to their windows."""
        return F.sliding_attention(q, k, v, self.window, **options)
