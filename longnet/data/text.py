"""Text files as token sources.

Bytes are read from the files as they are wanted. With a tokenizer.json the whole text is encoded
once and held in memory (2 or 4 bytes a token); what does not fit there is to be tokenised into
shards first. Documents are joined by one newline byte, or by the tokenizer's end-of-text token (by
its encoding of a newline if it has none).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from longnet.data.sources import ArraySource, FileSource, FileSpan, TokenSource
from longnet.data.tokenizer import ByteTokenizer, Tokenizer
from longnet.errors import DataError

_NEWLINE = ord("\n")
# The tokenizers library keeps some 100 bytes for each token of one call, and spreads the texts of a
# call over the cores: long files go in pieces, many pieces in a call.
_PIECE_BYTES = 1 << 18
_CALL_PIECES = 64


def text_span(path: str | os.PathLike[str]) -> FileSpan:
    """All bytes of a file.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    try:
        return FileSpan(Path(path), 0, os.stat(path).st_size, np.dtype(np.uint8))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def byte_source(spans: Sequence[FileSpan]) -> FileSource:
    """The spans as byte tokens (0..255), joined by a newline."""
    return FileSource(spans, vocab_size=256, separator=_NEWLINE)


def text_source(spans: Sequence[FileSpan], tokenizer: Tokenizer) -> TokenSource:
    """The spans as tokens of `tokenizer`.

    Bytes that are not UTF-8 reach a tokenizer.json as U+FFFD. A text longer than 256 KiB is
    encoded in pieces that end where a line ends, if any does.

    Raises
    ------
    DataError
        If there is no token at all, or a file cannot be read.
    """
    if isinstance(tokenizer, ByteTokenizer):
        return byte_source(spans)
    if tokenizer.end_of_text is not None:
        separator = np.array([tokenizer.end_of_text], np.int32)
    else:
        separator = tokenizer.encode("\n")
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    parts: list[np.ndarray] = []
    pieces = _pieces(spans)
    while call := list(islice(pieces, _CALL_PIECES)):
        encoded = tokenizer.encode_batch([piece for piece, _ in call])
        for ids, (_, begins_document) in zip(encoded, call, strict=True):
            if begins_document and parts:
                parts.append(separator.astype(dtype))
            parts.append(ids.astype(dtype))
    if not sum(part.size for part in parts):
        raise DataError(f"0 tokens in {len(spans)} files, expected at least 1")
    return ArraySource(np.concatenate(parts), tokenizer.vocab_size)


def _pieces(spans: Sequence[FileSpan]) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most 256 KiB, cut after a newline if there is one, and whether a span begins."""
    for span in spans:
        start = 0
        while start < span.count:
            piece = span.read(start, min(_PIECE_BYTES, span.count - start)).tobytes()
            if start + len(piece) < span.count:
                piece = piece[: piece.rfind(b"\n") + 1] or piece
            yield piece, start == 0
            start += len(piece)
