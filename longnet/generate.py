"""Text from a model, one token after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from longnet import functional as F
from longnet.arguments import integer, number
from longnet.autograd import Variable, no_grad
from longnet.errors import ConfigError, DataError

if TYPE_CHECKING:
    from longnet.model import LongNet


def generate(
    model: LongNet,
    prompt_tokens: ArrayLike,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    stop_token: int | None = None,
) -> np.ndarray:
    """Continue a prompt.

    Each token takes a forward pass over everything before it.

    Parameters
    ----------
    model : LongNet
        Left in the mode (training or not) in which it was.
    prompt_tokens : array_like of int, (n,)
        What to continue, at least one token.
    max_new_tokens : int
        Tokens to add.
    temperature : float
        Divides the logits; 0 takes the most likely token each time.
    top_k : int, optional
        Choose among the k most likely tokens only.
    top_p : float
        Choose among the fewest tokens only whose probabilities reach this sum, in (0, 1].
    seed : int
        Of the Philox generator that chooses, 0 .. 2^128 - 1.
    stop_token : int, optional
        The token after which to end early.

    Returns
    -------
    numpy.ndarray, (m,) int32
        The new tokens, m <= `max_new_tokens`, `stop_token` included.

    Raises
    ------
    DataError
        The prompt is empty or not integers in one dimension, or the model gives logits that are
        not finite.
    ConfigError
        A number is outside its range.
    TypeError
        A number is none.
    """
    prompt = _checked_prompt(prompt_tokens)
    max_new_tokens, seed = integer("max_new_tokens", max_new_tokens), integer("seed", seed)
    temperature, top_p = number("temperature", temperature), number("top_p", top_p)
    top_k = None if top_k is None else integer("top_k", top_k)
    stop_token = None if stop_token is None else integer("stop_token", stop_token)
    _require("max_new_tokens", max_new_tokens, max_new_tokens >= 0, "at least 0")
    _require("temperature", temperature, 0 <= temperature < np.inf, "a finite value of at least 0")
    _require("top_k", top_k, top_k is None or top_k >= 1, "at least 1, or None")
    _require("top_p", top_p, 0 < top_p <= 1, "a probability in (0, 1]")
    _require("seed", seed, 0 <= seed < 2**128, "0 to 2^128 - 1")

    random = np.random.Generator(np.random.Philox(key=seed))
    tokens = np.concatenate([prompt, np.empty(max_new_tokens, np.int32)])
    end = len(prompt)
    training = model.training
    model.eval()
    try:
        with no_grad():
            while end < len(tokens):
                tokens[end] = _choose(
                    _last_logits(model, tokens[:end]), temperature, top_k, top_p, random
                )
                end += 1
                if tokens[end - 1] == stop_token:
                    break
    finally:
        model.train(training)
    return tokens[len(prompt) : end]


def _last_logits(model: LongNet, tokens: np.ndarray) -> np.ndarray:
    """Logits (V,) after the last of `tokens` (n,), without those after the others."""
    hidden = model.hidden(tokens[None])
    last = Variable(hidden.data[0, -1:])
    return F.linear(last, model.output.in_dtype(hidden.dtype)).data.to("cpu").numpy()[0]


def _choose(
    logits: np.ndarray,
    temperature: float,
    top_k: int | None,
    top_p: float,
    random: np.random.Generator,
) -> int:
    """One token from the logits (V,) of a position."""
    logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise DataError("logits: NaN or infinite, expected finite numbers (are the weights?)")
    best = int(logits.argmax())
    if temperature == 0:
        return best
    order = np.argsort(-logits, kind="stable")[:top_k]  # most likely first
    # The difference may overflow to -inf for a tiny temperature: exp gives the 0 that is meant.
    with np.errstate(over="ignore"):
        weights = np.exp((logits[order] - logits[best]) / temperature)
    sums = np.cumsum(weights)
    # The fewest tokens that reach top_p of the sum; at least one.
    count = int(np.searchsorted(sums, top_p * sums[-1])) + 1
    sums = sums[:count]
    return int(order[np.searchsorted(sums, random.random() * sums[-1], side="right")])


def _checked_prompt(prompt_tokens: ArrayLike) -> np.ndarray:
    prompt = np.asarray(prompt_tokens)
    if prompt.ndim != 1 or not prompt.size or prompt.dtype.kind not in "iu":
        raise DataError(
            f"prompt_tokens: {prompt.dtype} array of shape {prompt.shape}, "
            "expected at least 1 integer in one dimension"
        )
    if int(prompt.min()) < 0 or int(prompt.max()) >= 2**31:
        raise DataError(f"prompt_tokens: {prompt.min()}..{prompt.max()}, expected 0..2^31-1")
    return prompt.astype(np.int32)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: found {value}, expected {expected}")
