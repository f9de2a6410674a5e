"""Tokens into a cache: pieces of a prompt, and the logits after the last of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from longnet import functional as F
from longnet.arguments import integer
from longnet.autograd import Variable
from longnet.errors import ConfigError, DataError
from longnet.generate.cache import ModelCache

PIECE = 8192  # tokens of a prompt that pass the model together


class Model(Protocol):
    """What generation needs of a model: `longnet.LongNet` has it."""

    config: Any
    output: Any

    def cache(self, batch: int = 1) -> ModelCache:
        """Return an empty cache."""

    def hidden(self, tokens: np.ndarray, **options: Any) -> Variable:
        """Return what the output projection sees, (B, N, E)."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Switch dropout and the tape off for a while."""


def read(
    model: Model, cache: ModelCache, prompts: Sequence[ArrayLike], *, piece: int = PIECE
) -> None:
    """Let a cache see more tokens; `cache.logits` are those of the token after them.

    Parameters
    ----------
    model : LongNet
        Left in the mode in which it was.
    cache : ModelCache
        Of this model.
    prompts : sequence of array_like of int, (n,)
        What follows in each sequence of the cache, at least one token.
    piece : int
        Tokens that pass the model together.

    Raises
    ------
    DataError
        A prompt is empty or not tokens of the model in one dimension.
    ConfigError
        `piece` is below 1, or there is another number of prompts than of sequences.
    """
    if len(prompts) != len(cache.seen):
        raise ConfigError(f"prompts: found {len(prompts)}, expected {len(cache.seen)} as the cache")
    check_piece(piece)
    rest = [checked_prompt(model, prompt) for prompt in prompts]
    logits: list[np.ndarray] = [np.empty(0)] * len(rest)
    while any(tokens.size for tokens in rest):
        # Pieces that end at multiples of `piece` meet the ends of segments.
        n = min(piece - max(cache.seen) % piece, max(tokens.size for tokens in rest))
        now = [tokens[:n] for tokens in rest]
        rest = [tokens[n:] for tokens in rest]
        last = [bool(a.size and not b.size) for a, b in zip(now, rest, strict=True)]
        for b, found in show(model, cache, now, n, last).items():
            logits[b] = found
    cache.logits = np.stack(logits)


def show(
    model: Model, cache: ModelCache, pieces: Sequence[np.ndarray], n: int, wanted: Sequence[bool]
) -> dict[int, np.ndarray]:
    """Show the model up to n tokens of each sequence; return the logits (V,) after the last of
    those `wanted`."""
    tokens = np.zeros((len(pieces), n), np.int32)
    for row, piece in zip(tokens, pieces, strict=True):
        row[: piece.size] = piece
    counts = [piece.size for piece in pieces]
    with model.evaluating():
        hidden = model.hidden(tokens, cache=cache, lengths=None if min(counts) == n else counts)
        output = model.output.in_dtype(hidden.dtype)

        def logits(rows: Variable) -> np.ndarray:
            return F.linear(rows, output).data.to("cpu").numpy().astype(np.float32)

        if n == 1:
            found = logits(hidden)[:, 0]
            return {b: found[b] for b, one in enumerate(wanted) if one}
        last = {b: hidden.data[b, counts[b] - 1 : counts[b]] for b, one in enumerate(wanted) if one}
        return {b: logits(Variable(row))[0] for b, row in last.items()}


def checked_prompt(model: Model, prompt_tokens: ArrayLike) -> np.ndarray:
    """Return a prompt as an array, (n,) int32; `DataError` for what is none."""
    prompt = np.asarray(prompt_tokens)
    if prompt.ndim != 1 or not prompt.size or prompt.dtype.kind not in "iu":
        raise DataError(
            f"prompt_tokens: {prompt.dtype} array of shape {prompt.shape}, "
            "expected at least 1 integer in one dimension"
        )
    last = model.config.vocab_size - 1
    if int(prompt.min()) < 0 or int(prompt.max()) > last:
        raise DataError(f"prompt_tokens: {prompt.min()}..{prompt.max()}, expected 0..{last}")
    return prompt.astype(np.int32)


def check_piece(piece: int) -> None:
    """Refuse a length of pieces that is none."""
    if integer("piece", piece) < 1:
        raise ConfigError(f"piece: found {piece}, expected at least 1")
