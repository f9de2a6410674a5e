"""Positions that are added to the embedding of tokens."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from longnet import functional as F
from longnet._core import Tensor
from longnet.autograd import Variable
from longnet.config import Config
from longnet.errors import ConfigError
from longnet.functional.buffers import as_tensor
from longnet.nn.layers import Embedding
from longnet.nn.module import Module


class Positions(Module):
    """Adds sinusoids or learned rows, where the configuration says so; else nothing.

    Parameters
    ----------
    config : Config
    dtype : str
        Of activations.
    device : str

    Attributes
    ----------
    table : Embedding or None
        Of `max_positions` rows, with `position` "learned".
    """

    def __init__(self, config: Config, *, dtype: str = "float32", device: str = "cpu") -> None:
        self.config = config
        self.table = (
            Embedding(config.max_positions or 0, config.embed_dim, dtype=dtype, device=device)
            if config.position == "learned"
            else None
        )

    def forward(
        self,
        x: Variable,
        *,
        start: int | Sequence[int] = 0,
        total: int | None = None,
        cu_seqlens: np.ndarray | Tensor | None = None,
    ) -> Variable:
        """Mark the rows of x (B, N, E).

        Parameters
        ----------
        x : Variable (B, N, E)
        start : int, or B of them
            Row of the sequence that row 0 of `x` is, or of each sequence.
        total : int, optional
            Rows of the whole sequence, or of the longest, where `x` has others than all of them:
            what lies beyond is padding.
        cu_seqlens : array (S+1,) int64, optional
            Where packed documents begin, and the rows of all; positions restart there.

        Returns
        -------
        Variable (B, N, E)

        Raises
        ------
        ConfigError
            A learned position would be `max_positions` or more, anywhere in the sequence.
        """
        if self.table is not None:
            return F.add(x, self.table(self._learned(x, start, total, cu_seqlens)))
        if self.config.position == "sinusoidal":
            documents = None if cu_seqlens is None else as_tensor(cu_seqlens).to(x.data.device)
            return F.add_sinusoids(
                x, base=self.config.position_base, start=start, cu_seqlens=documents
            )
        return x

    def _learned(
        self,
        x: Variable,
        start: int | Sequence[int],
        total: int | None,
        cu_seqlens: np.ndarray | Tensor | None,
    ) -> np.ndarray:
        """The positions (B, N) of the rows of `x`."""
        B, N, _ = x.shape
        rows = np.reshape(np.asarray(start, np.int64), (-1, 1)) + np.arange(N)
        longest = int(rows.max(initial=-1)) + 1 if total is None else total
        if cu_seqlens is not None:
            borders = np.asarray(as_tensor(cu_seqlens).to("cpu"))
            longest = max((b - a for a, b in pairwise(borders.tolist())), default=0)
            rows = rows - borders[np.searchsorted(borders, rows, side="right") - 1]
        rows = np.minimum(rows, longest - 1)
        limit = self.config.max_positions or 0
        if longest > limit:
            raise ConfigError(
                f"model.max_positions: found {limit}, expected at least {longest}, the rows of a "
                "sequence"
            )
        return np.ascontiguousarray(np.broadcast_to(rows, (B, N)))
