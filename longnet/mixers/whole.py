"""What mixers share whose attention is no dilated attention: it needs a whole sequence."""

from typing import Any

from longnet.autograd import Variable
from longnet.communicator import Communicator
from longnet.errors import ConfigError
from longnet.mixers.attention import Attention, Levels
from longnet.mixers.cache import AttentionCache


class WholeAttention(Attention):
    """Attention that needs all rows of a sequence in one place.

    A subclass says by `pairs` and `attend_whole` which query sees which key.
    """

    def levels(self, N: int) -> Levels:
        """Return one segment of N rows: a query may see any key before it."""
        return (N,), (1,)

    def attend(
        self,
        q: Variable,
        k: Variable,
        v: Variable,
        total: int,
        comm: Communicator | None,
        **options: Any,
    ) -> Variable:
        """Attention as `attend_whole` defines it; `ConfigError`, on all ranks, with a `comm`."""
        if comm is not None:
            raise ConfigError(
                f"mixer {self.config.mixer!r}: found a sequence on {comm.size} ranks, expected all "
                "of it on one: only dilated attention is shared"
            )
        return self.attend_whole(q, k, v, **options)

    def attend_whole(self, q: Variable, k: Variable, v: Variable, **options: Any) -> Variable:
        """Attention of queries (B, N, H, D) to keys and values (B, N, Hk, D)."""
        raise NotImplementedError(f"{type(self).__name__} does not define attend_whole")

    def cache(self, batch: int, dtype: str, device: str) -> AttentionCache:
        """Raise `ConfigError`: there is no cache of such attention."""
        raise ConfigError(
            f"mixer {self.config.mixer!r}: found a cache asked for, expected whole passes: only "
            "dilated attention is computed step by step"
        )
