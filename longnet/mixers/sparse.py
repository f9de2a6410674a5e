"""The Sparse Transformer's fixed pattern, the baseline of LongNet's paper."""

from typing import Any

from longnet import functional as F
from longnet.autograd import Variable
from longnet.communicator import Communicator
from longnet.config import Config
from longnet.errors import ConfigError
from longnet.mixers import register
from longnet.mixers.attention import Attention
from longnet.mixers.cache import SparseCache


@register("sparse")
class Sparse(Attention):
    """Causal attention to the query's block, as long as the first segment of the layer, and to
    `summary_columns` columns of each block before it (arXiv 1904.10509)."""

    def __init__(self, config: Config, layer: int, *, device: str = "cpu") -> None:
        super().__init__(config, layer, device=device)
        self.block = config.levels(layer)[0][0]
        if config.summary_columns > self.block:
            raise ConfigError(
                f"model.summary_columns: found {config.summary_columns}, expected at most "
                f"{self.block}, the first segment length"
            )

    def pairs(self, N: int) -> int:
        """Count the pairs of a query and a key of all heads, for N rows."""
        columns, total = self.config.summary_columns, 0
        for blocks, begin in enumerate(range(0, N, self.block)):
            rows = min(self.block, N - begin)
            total += rows * (rows + 1) // 2 + rows * blocks * columns
        return self.config.num_heads * total

    def attend(
        self,
        q: Variable,
        k: Variable,
        v: Variable,
        total: int,
        comm: Communicator | None,
        **options: Any,
    ) -> Variable:
        """Attention of the queries to what the pattern shows them."""
        columns = self.config.summary_columns
        return F.fixed_attention(q, k, v, self.block, columns, comm=comm, **options)

    def cache(self, batch: int, dtype: str, device: str) -> SparseCache:
        """Return the cache of `batch` sequences: their present blocks, and the columns of all
        blocks so far."""
        return SparseCache(
            self.block,
            self.config.summary_columns,
            num_heads=self.config.num_heads,
            kv_heads=self.config.kv_heads,
            head_dim=self.head_width,
            scale=self.scale,
            batch=batch,
            dtype=dtype,
            device=device,
        )
