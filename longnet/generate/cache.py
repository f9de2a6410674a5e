"""The caches of all layers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longnet.errors import ConfigError, LongNetError, ShapeError


class ModelCache:
    """What a model keeps of the tokens it has seen; `LongNet.cache` makes an empty one.

    Parameters
    ----------
    layers : sequence
        The cache of each layer's mixer.
    batch : int
        B sequences, each of a length of its own.

    Attributes
    ----------
    layers : list
    seen : list of int
        Tokens of each sequence so far.
    logits : numpy.ndarray (B, V) float32, or None
        Of the token after the last one seen, where `longnet.generate.read` saw it.
    """

    def __init__(self, layers: Sequence[Any], batch: int) -> None:
        self.layers = list(layers)
        self.seen = [0] * batch
        self.logits: np.ndarray | None = None

    @classmethod
    def of(cls, mixers: Sequence[Any], batch: int, dtype: str, device: str) -> ModelCache:
        """Return an empty cache of the layers' mixers.

        Raises
        ------
        ConfigError
            A mixer has none.
        """
        for mixer in mixers:
            if not hasattr(mixer, "cache"):
                raise ConfigError(
                    f"mixer: found {type(mixer).__name__}, expected one with a cache "
                    "(docs/adding_a_mixer.md)"
                )
        return cls([mixer.cache(batch, dtype, device) for mixer in mixers], batch)

    @property
    def nbytes(self) -> int:
        """Bytes of all layers."""
        return sum(layer.nbytes for layer in self.layers)

    def begin(self, shape: Sequence[int], lengths: Sequence[int] | None) -> list[int]:
        """Check a pass over tokens (B, n), of which each sequence has `lengths`, all by default.

        Returns
        -------
        list of int
            How many tokens each sequence has.

        Raises
        ------
        ShapeError
            The batch is another one, or a length is not 0 .. n.
        LongNetError
            An earlier pass ended before its last layer.
        """
        batch, n = shape
        if batch != len(self.seen):
            raise ShapeError(f"tokens: a batch of {batch}, expected {len(self.seen)} as the cache")
        counts = [n] * batch if lengths is None else [int(count) for count in lengths]
        if len(counts) != batch or min(counts) < 0 or max(counts) > n:
            raise ShapeError(f"lengths: found {counts}, expected {batch} numbers from 0 to {n}")
        if any(layer.seen != self.seen for layer in self.layers):
            raise LongNetError(
                "cache: found layers that have seen different tokens, expected one of which no "
                "pass was interrupted"
            )
        self.logits = None
        return counts

    def end(self, counts: Sequence[int]) -> None:
        """Count the tokens of a pass that all layers have seen."""
        self.seen = [seen + count for seen, count in zip(self.seen, counts, strict=True)]
