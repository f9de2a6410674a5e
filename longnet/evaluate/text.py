"""A model on text: losses from contexts of several lengths, and published benchmarks of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from longnet.data import Tokenizer
from longnet.errors import DataError
from longnet.evaluate.metrics import count_words, standard_error, word_perplexity
from longnet.evaluate.perplexity import evaluate
from longnet.evaluate.predictions import predict
from longnet.evaluate.readers import Book, Passage
from longnet.evaluate.tasks import pass_size
from longnet.tasks import IGNORE

if TYPE_CHECKING:
    from longnet.model import LongNet


def sum_of_losses(model: LongNet, rows: np.ndarray, length: int, device: str) -> float:
    """Losses of all tokens but each row's first, in nats.

    Rows are cut end to end into windows: each token is predicted once, from those before it in its
    window.

    Parameters
    ----------
    model : LongNet
        Left in the mode (training or not) in which it was.
    rows : numpy.ndarray, (W, n + 1) int32
    length : int
        Tokens of a window; of the last one of each row as many as are left.
    device : str
        Where the model lies.

    Raises
    ------
    DataError
        A row has fewer than two tokens, or `length` is below 1.
    """
    if length < 1:
        raise DataError(f"length: found {length}, expected at least 1")
    if rows.shape[1] < 2:
        raise DataError(f"text: found {rows.shape[1]} tokens, expected at least 2")
    inputs, targets = rows[:, :-1], rows[:, 1:]
    whole = inputs.shape[1] // length * length
    total = 0.0
    for part in (slice(0, whole), slice(whole, None)):
        n = min(length, inputs[:, part].shape[1])
        if n:
            windows = [np.ascontiguousarray(x[:, part]).reshape(-1, n) for x in (inputs, targets)]
            found = evaluate(model, *windows, batch_size=pass_size(device, n))
            total += found.loss * windows[1].size
    return total


def evaluate_contexts(
    model: LongNet,
    rows: np.ndarray,
    lengths: Sequence[int],
    *,
    num_bytes: int | None = None,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Score the same text from contexts of several lengths.

    Parameters
    ----------
    model : LongNet
    rows : numpy.ndarray, (W, n + 1) int32
        W stretches of text.
    lengths : sequence of int
        Of windows, as `sum_of_losses` cuts them.
    num_bytes : int, optional
        Of the text that the tokens but each row's first stand for.
    device : str
        Where the model lies.

    Yields
    ------
    dict
        ``length``, ``tokens``, ``loss`` in nats a token, ``perplexity``, and ``bits_per_byte``,
        None where `num_bytes` is.
    """
    tokens = rows[:, 1:].size
    for length in lengths:
        nats = sum_of_losses(model, rows, length, device)
        yield {
            "length": length,
            "tokens": tokens,
            "loss": nats / tokens,
            "perplexity": word_perplexity(nats, tokens),
            "bits_per_byte": None if num_bytes is None else nats / math.log(2) / num_bytes,
        }


def evaluate_lambada(
    model: LongNet,
    tokenizer: Tokenizer,
    passages: Iterator[Passage],
    *,
    examples: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """LAMBADA: the accuracy of the last word, and its perplexity.

    A word is right where all its tokens are the most likely ones, in one pass over the passage.

    Parameters
    ----------
    model : LongNet
    tokenizer : Tokenizer
    passages : iterator of Passage
    examples : int, optional
        How many of the first passages; by default all.
    device : str
        Where the model lies.

    Returns
    -------
    dict
        ``examples``, ``accuracy``, its ``standard_error``, and ``perplexity`` of a word.

    Raises
    ------
    DataError
        There is no passage, or a context has no token.
    """
    right: list[bool] = []
    nats = 0.0
    passages = islice(passages, examples)
    while batch := list(islice(passages, pass_size(device, 256))):
        contexts = tokenizer.encode_batch([passage.context for passage in batch])
        words = tokenizer.encode_batch([passage.word for passage in batch])
        rows = [np.concatenate(pair) for pair in zip(contexts, words, strict=True)]
        shape = len(batch), max(map(len, rows)) - 1
        inputs, targets = np.zeros(shape, np.int32), np.full(shape, IGNORE, np.int32)
        for i, (row, context) in enumerate(zip(rows, contexts, strict=True)):
            if not len(context):
                raise DataError(f"passage {len(right) + i + 1}: 0 tokens before its last word")
            inputs[i, : len(row) - 1] = row[:-1]
            targets[i, len(context) - 1 : len(row) - 1] = row[len(context) :]
        predicted = predict(model, inputs, targets)
        hits = predicted.ids == targets[targets != IGNORE]
        ends = np.cumsum([len(word) for word in words])
        right += [bool(part.all()) for part in np.split(hits, ends[:-1])]
        nats += float(predicted.nats.sum())
    if not right:
        raise DataError("LAMBADA: 0 passages, expected at least 1")
    return {
        "examples": len(right),
        "accuracy": sum(right) / len(right),
        "standard_error": standard_error(right),
        "perplexity": word_perplexity(nats, len(right)),
    }


def evaluate_books(
    model: LongNet,
    tokenizer: Tokenizer,
    books: Iterator[Book],
    length: int,
    *,
    examples: int | None = None,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """PG-19: word-level perplexity of each book, and of all.

    Parameters
    ----------
    model : LongNet
    tokenizer : Tokenizer
    books : iterator of Book
    length : int
        Of windows, as `sum_of_losses` cuts them.
    examples : int, optional
        How many of the first books; by default all.
    device : str
        Where the model lies.

    Yields
    ------
    dict
        ``book``, ``words``, ``tokens``, ``word_perplexity`` and ``bits_per_byte``; last those of
        all books, under the name ``all``.
    """
    sums = np.zeros(4)
    for book in islice(books, examples):
        tokens = tokenizer.encode(book.text)
        nats = sum_of_losses(model, tokens[None], length, device)
        num_bytes = tokenizer.num_bytes(tokens[1:])
        counts = count_words(book.text), tokens.size - 1, nats, num_bytes
        sums += counts
        yield _book_record(book.number, length, *counts)
    yield _book_record("all", length, int(sums[0]), int(sums[1]), sums[2], int(sums[3]))


def _book_record(
    name: str, length: int, words: int, tokens: int, nats: float, num_bytes: int
) -> dict[str, Any]:
    return {
        "book": name,
        "length": length,
        "words": words,
        "tokens": tokens,
        "word_perplexity": word_perplexity(nats, words),
        "bits_per_byte": nats / math.log(2) / num_bytes,
    }
