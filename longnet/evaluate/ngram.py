"""Unigram and bigram baselines in bits per byte.

Both are fitted on training tokens alone, with Witten-Bell interpolation, which has nothing to tune:
with n(c) tokens seen after context c, T(c) different ones among them, and a vocabulary of V,

    p1(x)   = (n(x)    + T    / V    ) / (n    + T)        no context
    p2(x|c) = (n(c, x) + T(c) * p1(x)) / (n(c) + T(c))     the token before; p1(x) where c is unseen
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from longnet.errors import DataError

# Up to this many (context, token) pairs are counted in a table (64 MiB), more by sorting.
_TABLE_PAIRS = 1 << 23


class NgramBits(NamedTuple):
    """Bits per byte of the two baselines on the same targets."""

    unigram: float
    bigram: float


def ngram_bits_per_byte(
    train_tokens: np.ndarray,
    inputs: np.ndarray,
    targets: np.ndarray,
    vocab_size: int,
    num_bytes: int | None = None,
) -> NgramBits:
    """Fit a unigram and a bigram on `train_tokens` and score `targets` with them.

    Parameters
    ----------
    train_tokens : numpy.ndarray, (n,) int
        What the baselines learn from.
    inputs, targets : numpy.ndarray, any equal shape, int
        The bigram predicts ``targets[i]`` from ``inputs[i]``, as a model with one token of context.
    vocab_size : int
        V; every id lies in ``0 .. V - 1``.
    num_bytes : int, optional
        Bytes of the text that `targets` stand for; by default one a token.

    Returns
    -------
    NgramBits
        Total bits over `num_bytes`.

    Raises
    ------
    DataError
        If an array is empty, shapes differ, or an id leaves the vocabulary.
    """
    if inputs.shape != targets.shape:
        raise DataError(f"targets: shape {targets.shape}, expected {inputs.shape} as inputs")
    for name, ids in (("train_tokens", train_tokens), ("inputs", inputs), ("targets", targets)):
        _check_ids(name, ids, vocab_size)
    num_bytes = targets.size if num_bytes is None else num_bytes
    if num_bytes < 1:
        raise DataError(f"num_bytes: {num_bytes}, expected at least 1")

    tokens, contexts, following = train_tokens.ravel(), inputs.ravel(), targets.ravel()
    unigram = _unigram(tokens, vocab_size)
    p1 = unigram[following]
    pairs = tokens[:-1].astype(np.int64) * vocab_size + tokens[1:]
    wanted = contexts.astype(np.int64) * vocab_size + following
    seen, distinct, pair = _count_pairs(pairs, wanted, vocab_size)
    mass = (seen + distinct)[contexts]
    p2 = np.where(mass > 0, (pair + distinct[contexts] * p1) / np.maximum(mass, 1), p1)
    return NgramBits(
        float(-np.log2(p1).sum() / num_bytes),
        float(-np.log2(p2).sum() / num_bytes),
    )


def _check_ids(name: str, ids: np.ndarray, vocab_size: int) -> None:
    if not ids.size:
        raise DataError(f"{name}: 0 tokens, expected at least 1")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        found = low if low < 0 else high
        raise DataError(f"{name}: token id {found}, expected 0..{vocab_size - 1}")


def _unigram(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """p1 of every token, (V,) float64."""
    counts = np.bincount(tokens, minlength=vocab_size)
    distinct = np.count_nonzero(counts)
    return (counts + distinct / vocab_size) / (tokens.size + distinct)


def _count_pairs(
    pairs: np.ndarray, wanted: np.ndarray, vocab_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n(c) (V,), T(c) (V,) and the counts of the `wanted` pairs; a pair's code is c * V + x."""
    if vocab_size * vocab_size <= _TABLE_PAIRS:
        table = np.bincount(pairs, minlength=vocab_size * vocab_size)
        rows = table.reshape(vocab_size, vocab_size)
        return rows.sum(axis=1), np.count_nonzero(rows, axis=1), table[wanted]
    codes, counts = np.unique(pairs, return_counts=True)
    seen = np.bincount(pairs // vocab_size, minlength=vocab_size)
    distinct = np.bincount(codes // vocab_size, minlength=vocab_size)
    if not codes.size:
        return seen, distinct, np.zeros(wanted.size, np.int64)
    where = np.minimum(np.searchsorted(codes, wanted), codes.size - 1)
    return seen, distinct, np.where(codes[where] == wanted, counts[where], 0)
