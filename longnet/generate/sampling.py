"""Which token comes next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longnet.arguments import integer, number
from longnet.errors import ConfigError, DataError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes
    ----------
    temperature : float
        Divides the logits; 0 takes the most likely token each time.
    top_k : int, optional
        Choose among the k most likely tokens only.
    top_p : float
        Choose among the fewest tokens only whose probabilities reach this sum, in (0, 1].
    seed : int
        Of the Philox generators that choose, 0 .. 2^128 - 1; sequence b of a batch has seed + b.

    Raises
    ------
    ConfigError
        A number is outside its range.
    TypeError
        A number is none.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, convert in (("temperature", number), ("top_p", number), ("seed", integer)):
            object.__setattr__(self, name, convert(name, getattr(self, name)))
        if self.top_k is not None:
            object.__setattr__(self, "top_k", integer("top_k", self.top_k))
        temperature, top_k = self.temperature, self.top_k
        self._require("temperature", 0 <= temperature < np.inf, "a finite value of at least 0")
        self._require("top_k", top_k is None or top_k >= 1, "at least 1, or None")
        self._require("top_p", 0 < self.top_p <= 1, "a probability in (0, 1]")
        self._require("seed", 0 <= self.seed < 2**128, "0 to 2^128 - 1")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ConfigError(f"{name}: found {getattr(self, name)}, expected {expected}")

    def generators(self, batch: int) -> list[np.random.Generator]:
        """Return the generator of each sequence."""
        seeds = ((self.seed + b) % 2**128 for b in range(batch))
        return [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]

    def choose(self, logits: np.ndarray, random: np.random.Generator) -> int:
        """Return one token.

        Parameters
        ----------
        logits : array (V,)
        random : numpy.random.Generator

        Raises
        ------
        DataError
            A logit is not finite.
        """
        logits = logits.astype(np.float64)
        if not np.isfinite(logits).all():
            raise DataError("logits: NaN or infinite, expected finite numbers (are the weights?)")
        best = int(logits.argmax())
        if self.temperature == 0:
            return best
        tokens = self._most_likely(logits)
        # The difference may overflow to -inf for a tiny temperature: exp gives the 0 that is meant.
        with np.errstate(over="ignore"):
            weights = np.exp((logits[tokens] - logits[best]) / self.temperature)
        sums = np.cumsum(weights)
        if self.top_p < 1:  # the fewest tokens that reach top_p of the sum; at least one
            sums = sums[: int(np.searchsorted(sums, self.top_p * sums[-1])) + 1]
        return int(tokens[np.searchsorted(sums, random.random() * sums[-1], side="right")])

    def _most_likely(self, logits: np.ndarray) -> np.ndarray:
        """The tokens that may be chosen, the most likely first where that matters."""
        tokens, k = np.arange(len(logits)), self.top_k
        if k is not None and k < len(logits):
            tokens = np.flatnonzero(logits >= np.partition(logits, -k)[-k])  # with all equal ones
        elif self.top_p == 1:
            return tokens
        return tokens[np.argsort(-logits[tokens], kind="stable")][:k]
