"""Tokenizers: bytes by default, a tokenizer.json of the `tokenizers` library when given."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from longnet.errors import DataError

# Names under which published tokenizers know the token that ends a document.
_END_OF_TEXT_NAMES = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "[EOS]",
    "[SEP]",
)


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back.

    Attributes
    ----------
    name : str
        For people.
    fingerprint : str
        Identity: two tokenizers with the same fingerprint give the same ids.
    vocab_size : int
        Ids lie in ``0 .. vocab_size - 1``.
    end_of_text : int or None
        Token that ends a document.
    """

    name: str
    fingerprint: str
    vocab_size: int
    end_of_text: int | None

    def encode(self, text: str | bytes) -> np.ndarray:
        """Token ids, (n,) int32."""

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[np.ndarray]:
        """Token ids of each text, on all cores where the tokenizer can."""

    def decode(self, ids: ArrayLike) -> str:
        """Text of token ids; what is no text becomes U+FFFD."""

    def num_bytes(self, ids: ArrayLike) -> int:
        """UTF-8 bytes of the text that token ids stand for: the divisor of bits per byte."""


class ByteTokenizer:
    """Each byte is a token: 256 ids, no training, every file works."""

    name: str = "bytes"
    fingerprint: str = "bytes-256"
    vocab_size: int = 256
    end_of_text: int | None = None

    def encode(self, text: str | bytes) -> np.ndarray:
        """Bytes of `text` (UTF-8 if a str) as (n,) int32.

        Raises
        ------
        DataError
            If a str holds a lone surrogate, which UTF-8 cannot express.
        """
        if isinstance(text, str):
            try:
                content = text.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                found = f"U+{ord(error.object[error.start]):04X} at position {error.start}"
                raise DataError(f"text: {found}, expected characters that UTF-8 has") from error
        else:
            content = text
        return np.frombuffer(content, np.uint8).astype(np.int32)

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[np.ndarray]:
        """Bytes of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: ArrayLike) -> str:
        """Text of (n,) byte values, U+FFFD for what is not UTF-8.

        Raises
        ------
        DataError
            If an id lies outside 0..255.
        """
        return _checked_ids(ids, 256).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def num_bytes(self, ids: ArrayLike) -> int:
        """One byte a token."""
        return int(np.asarray(ids).size)


class JsonTokenizer:
    """A tokenizer.json, run by the `tokenizers` library (imported when first needed).

    No special tokens are added on encoding, and truncation and padding that the file asks for are
    turned off.

    Parameters
    ----------
    path : path-like
        The file, or a folder with a ``tokenizer.json``.

    Raises
    ------
    DataError
        If the file cannot be read or is no tokenizer, or the library is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path).expanduser()
        if path.is_dir():
            path = path / "tokenizer.json"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}, expected a tokenizer.json") from error
        try:
            from tokenizers import Tokenizer as Implementation
        except ImportError as error:
            raise DataError(
                f"{path}: the 'tokenizers' package is not installed, expected for a tokenizer.json"
            ) from error
        try:
            self._tokenizer = Implementation.from_buffer(content)
        except Exception as error:  # the library raises plain Exception
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: {reason}, expected a tokenizer.json") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise DataError(f"{path}: a vocabulary of 0 tokens, expected at least 1")
        self.name = str(path)
        self.fingerprint = f"tokenizer.json-{hashlib.sha256(content).hexdigest()}"
        self.vocab_size = max(vocabulary.values()) + 1  # ids may have gaps
        ends = [vocabulary[name] for name in _END_OF_TEXT_NAMES if name in vocabulary]
        self.end_of_text = ends[0] if ends else None

    def encode(self, text: str | bytes) -> np.ndarray:
        """Token ids of `text`, (n,) int32; bytes that are not UTF-8 count as U+FFFD."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[np.ndarray]:
        """Token ids of each text, computed on all cores.

        Raises
        ------
        DataError
            If the library cannot encode a text (an unknown word and no token for it, say).
        """
        decoded = [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts]
        try:
            encodings = self._tokenizer.encode_batch_fast(decoded, add_special_tokens=False)
        except Exception as error:  # the library raises plain Exception
            reason = " ".join(str(error).split())
            raise DataError(f"{self.name}: {reason}, expected text that it can encode") from error
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def decode(self, ids: ArrayLike) -> str:
        """Text of (n,) token ids, special tokens shown by name.

        Raises
        ------
        DataError
            If an id lies outside the vocabulary.
        """
        return self._decode(ids, skip_special_tokens=False)

    def num_bytes(self, ids: ArrayLike) -> int:
        """UTF-8 bytes of the text; special tokens count for nothing."""
        return len(self._decode(ids, skip_special_tokens=True).encode("utf-8"))

    def _decode(self, ids: ArrayLike, skip_special_tokens: bool) -> str:
        checked = _checked_ids(ids, self.vocab_size).tolist()
        return self._tokenizer.decode(checked, skip_special_tokens=skip_special_tokens)


def load_tokenizer(path: str | os.PathLike[str] | None = None) -> Tokenizer:
    """The tokenizer at `path`, or bytes for None and ``"bytes"``.

    Raises
    ------
    DataError
        As `JsonTokenizer`.
    """
    return ByteTokenizer() if path is None or path == "bytes" else JsonTokenizer(path)


def _checked_ids(ids: ArrayLike, vocab_size: int) -> np.ndarray:
    array = np.asarray(ids)
    if not array.size:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise DataError(f"token ids: {array.dtype}, expected integers")
    outside = (array < 0) | (array >= vocab_size)
    if outside.any():
        raise DataError(f"token id {int(array[outside][0])}, expected 0..{vocab_size - 1}")
    return array.ravel()
