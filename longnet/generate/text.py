"""Text instead of tokens: characters as soon as they are complete, and strings that end it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from longnet.data import ByteTokenizer, Tokenizer
from longnet.errors import ConfigError
from longnet.generate.cache import ModelCache
from longnet.generate.reading import Model
from longnet.generate.tokens import stream

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTEXT = 8  # tokens before a new one that may change how it is written
_MOST_INCOMPLETE = 4  # tokens that one character may take: UTF-8 has at most so many bytes


def stream_text(
    model: Model,
    tokenizer: Tokenizer,
    prompt: str | bytes,
    max_new_tokens: int,
    *,
    stop: str | Sequence[str] = (),
    cache: ModelCache | None = None,
    context: Sequence[int] | np.ndarray = (),
    **options: Any,
) -> Iterator[str]:
    """Continue a text, and give what is new as soon as it is certain.

    Ends at the tokenizer's end-of-text token, which is not part of the text.

    Parameters
    ----------
    model : LongNet
    tokenizer : Tokenizer
        The one that the model was trained with.
    prompt : str or bytes
        At least one token, or none after those that `cache` has read.
    max_new_tokens : int
        Tokens to add.
    stop : str or sequence of str
        Ends the text before the first of these that comes up.
    cache : ModelCache, optional
        As `longnet.generate.generate` takes it.
    context : sequence of int
        The last tokens that `cache` has read, if they are known: how the first new one is written
        may depend on them.
    **options
        `piece`, `temperature`, `top_k`, `top_p`, `seed`, likewise.

    Returns
    -------
    iterator of str
        One string a token, of the characters that the token completes; it may be empty. A last one
        for what is left at the end.

    Raises
    ------
    ConfigError
        The tokenizer has more tokens than the model, or a stop string is empty.
    DataError, ConfigError, TypeError
        As `longnet.generate.generate` does.
    """
    check_vocabulary(model, tokenizer)
    stops = StopStrings([stop] if isinstance(stop, str) else stop)
    prompt_tokens = tokenizer.encode(prompt)
    tokens = stream(
        model,
        prompt_tokens,
        max_new_tokens,
        cache=cache,
        stop_token=tokenizer.end_of_text,
        vocab_size=tokenizer.vocab_size,
        **options,
    )
    text = TokenText(tokenizer, [*context[-_CONTEXT:], *prompt_tokens[-_CONTEXT:]])

    def chunks() -> Iterator[str]:
        for token in tokens:
            if token == tokenizer.end_of_text:
                break
            yield stops.push(text.push(token))
            if stops.found:
                return
        last = stops.push(text.finish())
        yield last if stops.found else last + stops.finish()

    return chunks()


def check_vocabulary(model: Model, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer with tokens that the model does not have.

    Raises
    ------
    ConfigError
    """
    found, most = tokenizer.vocab_size, model.config.vocab_size
    if found > most:
        raise ConfigError(
            f"tokenizer {tokenizer.name}: found {found} tokens, expected at most {most}, the "
            "model's (is it the one that the model was trained with?)"
        )


class TokenText:
    """Text of tokens that come one by one.

    Parameters
    ----------
    tokenizer : Tokenizer
    context : sequence of int
        Tokens before: a tokenizer may write a token differently at the beginning of a text.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] | np.ndarray = ()) -> None:
        self._tokenizer = tokenizer
        # As bytes are all that such a token is, those of an incomplete character are told exactly.
        self._bytes = (
            codecs.getincrementaldecoder("utf-8")("replace")
            if isinstance(tokenizer, ByteTokenizer)
            else None
        )
        self._tokens = [int(token) for token in context[-_CONTEXT:]]
        self._shown = len(self._tokens)  # of which the text has been given
        if self._bytes is not None:
            self._bytes.decode(bytes(self._tokens))

    def push(self, token: int) -> str:
        """Return the characters that `token` completes."""
        if self._bytes is not None:
            return self._bytes.decode(bytes([token]))
        self._tokens.append(token)
        text = self._new_text()
        pending = len(self._tokens) - self._shown
        if text.endswith(_REPLACEMENT) and pending < _MOST_INCOMPLETE:
            return ""
        self._tokens = self._tokens[-_CONTEXT:]
        self._shown = len(self._tokens)
        return text

    def finish(self) -> str:
        """Return the text of what is left."""
        if self._bytes is not None:
            return self._bytes.decode(b"", final=True)
        return self._new_text()

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._tokens[: self._shown])
        return self._tokenizer.decode(self._tokens)[len(before) :]


class StopStrings:
    """Text up to the first of some strings.

    Parameters
    ----------
    stops : sequence of str

    Attributes
    ----------
    found : bool
        Whether one has come up.

    Raises
    ------
    ConfigError
        A string is empty, or none.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise ConfigError(f"stop: found {stop!r}, expected a string that is not empty")
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return what is certain not to belong to a stop string, before any."""
        text = self._held + text
        ends = [end for stop in self._stops if (end := text.find(stop)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Return what was held back."""
        return self._held


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` with which `stop` begins."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))
