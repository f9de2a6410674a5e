"""Tokens after a prompt, chosen one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from longnet.arguments import integer
from longnet.errors import ConfigError, DataError
from longnet.generate.cache import ModelCache
from longnet.generate.reading import PIECE, Model, check_piece, checked_prompt, read, show
from longnet.generate.sampling import Sampling


def generate(
    model: Model,
    prompt_tokens: ArrayLike,
    max_new_tokens: int,
    *,
    cache: ModelCache | None = None,
    stop_token: int | None = None,
    piece: int = PIECE,
    **sampling: Any,
) -> np.ndarray:
    """Continue a prompt.

    Parameters
    ----------
    model : LongNet
        Left in the mode (training or not) in which it was.
    prompt_tokens : array_like of int, (n,)
        What to continue: at least one token, or none after those that `cache` has read.
    max_new_tokens : int
        Tokens to add.
    cache : ModelCache, optional
        Of what comes before the prompt. Afterwards it has seen the prompt and all new tokens but
        the last one; empty and thrown away by default.
    stop_token : int, optional
        The token after which to end early.
    piece : int
        Tokens of the prompt that pass the model together: memory grows with it.
    **sampling
        `temperature`, `top_k`, `top_p`, `seed`, as `longnet.generate.sampling.Sampling` has them.

    Returns
    -------
    numpy.ndarray, (m,) int32
        The new tokens, m <= `max_new_tokens`, `stop_token` included.

    Raises
    ------
    DataError
        The prompt is empty or not tokens of the model in one dimension, or the model gives logits
        that are not finite.
    ConfigError
        A number is outside its range.
    TypeError
        A number is none.
    """
    found = stream(
        model,
        prompt_tokens,
        max_new_tokens,
        cache=cache,
        stop_token=stop_token,
        piece=piece,
        **sampling,
    )
    return np.fromiter(found, np.int32)


def generate_batch(
    model: Model,
    prompts: Sequence[ArrayLike],
    max_new_tokens: int,
    *,
    stop_token: int | None = None,
    piece: int = PIECE,
    **sampling: Any,
) -> list[np.ndarray]:
    """Continue several prompts, which may differ in length, together.

    Each continuation is that of `generate` with the prompt alone and ``seed + b`` for prompt b.

    Parameters
    ----------
    model, max_new_tokens, stop_token, piece, **sampling
        As `generate` takes them.
    prompts : sequence of array_like of int, (n,)
        At least one, each of at least one token.

    Returns
    -------
    list of numpy.ndarray, (m,) int32
        The new tokens after each prompt.

    Raises
    ------
    DataError, ConfigError, TypeError
        As `generate` does, or there is no prompt.
    """
    if not len(prompts):
        raise DataError("prompts: found none, expected at least 1")
    cache = model.cache(len(prompts))
    choices = _choices(model, prompts, max_new_tokens, cache, stop_token, piece, sampling)
    columns = np.array(list(choices), np.int32).reshape(-1, len(prompts))
    return [column[column >= 0] for column in columns.T]


def stream(
    model: Model,
    prompt_tokens: ArrayLike,
    max_new_tokens: int,
    *,
    cache: ModelCache | None = None,
    stop_token: int | None = None,
    piece: int = PIECE,
    vocab_size: int | None = None,
    **sampling: Any,
) -> Iterator[int]:
    """Continue a prompt, and give each token when it is chosen.

    Parameters
    ----------
    model, prompt_tokens, max_new_tokens, cache, stop_token, piece, **sampling
        As `generate` takes them; they are checked before this returns.
    vocab_size : int, optional
        Choose among the first so many tokens; by default among all.

    Returns
    -------
    iterator of int

    Raises
    ------
    DataError, ConfigError, TypeError
        As `generate` does.
    """
    cache = model.cache() if cache is None else cache
    if len(cache.seen) != 1:
        raise ConfigError(f"cache: found a batch of {len(cache.seen)}, expected 1")
    choices = _choices(
        model, [prompt_tokens], max_new_tokens, cache, stop_token, piece, sampling, vocab_size
    )
    return (int(tokens[0]) for tokens in choices)


def _choices(
    model: Model,
    prompts: Sequence[ArrayLike],
    max_new_tokens: int,
    cache: ModelCache,
    stop_token: int | None,
    piece: int,
    sampling: dict[str, Any],
    vocab_size: int | None = None,
) -> Iterator[np.ndarray]:
    """The next token of each sequence, (B,) int32, -1 after the end; arguments are checked now."""
    rule = Sampling(**sampling)
    max_new_tokens = integer("max_new_tokens", max_new_tokens)
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens: found {max_new_tokens}, expected at least 0")
    stop_token = None if stop_token is None else integer("stop_token", stop_token)
    check_piece(piece)
    nothing_new = all(np.size(prompt) == 0 for prompt in prompts)
    if not (nothing_new and cache.logits is not None):
        for prompt in prompts:
            checked_prompt(model, prompt)

    def choose() -> Iterator[np.ndarray]:
        if not max_new_tokens:
            return
        if cache.logits is None or not nothing_new:
            read(model, cache, prompts, piece=piece)
        generators = rule.generators(len(cache.seen))
        tokens = np.zeros(len(generators), np.int32)
        for count in range(1, max_new_tokens + 1):
            logits = cache.logits
            assert logits is not None
            for b, random in enumerate(generators):
                if tokens[b] >= 0:
                    tokens[b] = rule.choose(logits[b, :vocab_size], random)
            yield tokens.copy()
            going = (tokens >= 0) & (tokens != (-1 if stop_token is None else stop_token))
            if count == max_new_tokens or not going.any():
                return
            tokens[~going] = -1
            now = [tokens[b : b + int(goes)] for b, goes in enumerate(going)]
            found = show(model, cache, now, 1, going.tolist())
            cache.logits = np.stack([found.get(b, logits[b]) for b in range(len(tokens))])

    return choose()
