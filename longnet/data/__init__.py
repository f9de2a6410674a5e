"""Data: tokenizers, token sources and batches. NumPy only; knows no model and no trainer."""

from __future__ import annotations

from longnet.data.batches import Batches, validation_windows
from longnet.data.corpus import stdlib_source, stdlib_spans
from longnet.data.files import Spec, find_files, is_validation, split_spans
from longnet.data.shards import SHARD_FORMATS, shard_span
from longnet.data.sources import ArraySource, FileSource, FileSpan, TokenSource
from longnet.data.text import text_source, text_span
from longnet.data.tokenizer import ByteTokenizer, JsonTokenizer, Tokenizer, load_tokenizer
from longnet.errors import DataError

__all__ = [
    "ArraySource",
    "Batches",
    "ByteTokenizer",
    "FileSource",
    "FileSpan",
    "JsonTokenizer",
    "TokenSource",
    "Tokenizer",
    "load_tokenizer",
    "open_source",
    "shard_span",
    "stdlib_source",
    "validation_windows",
]

_FORMATS = (*SHARD_FORMATS, "text")


def open_source(
    spec: Spec | None,
    split: str,
    tokenizer: Tokenizer | None = None,
    *,
    validation: Spec | None = None,
    format: str = "auto",
    vocab_size: int | None = None,
) -> TokenSource:
    """Open one split of the data that `spec` names.

    Without `validation` the files of `spec` are split, the same way every time: shards that have
    ``val`` or ``validation`` as a word of their name are validation; 32 files or more are split by
    a hash of their relative path (7 % to validation); of fewer files, the last twentieth of each is
    validation.

    Parameters
    ----------
    spec : None, path, folder, glob or list of them
        None and ``"stdlib"``: the source code of Python's standard library. Otherwise text files,
        or ``.bin`` shards of tokens (one kind at a time); a folder is searched recursively.
    split : {"train", "validation"}
        Which part.
    tokenizer : Tokenizer, optional
        For text; bytes by default.
    validation : path, folder, glob or list of them, optional
        Validation data; all of `spec` is then for training.
    format : {"auto", "nanogpt", "llmc", "text"}
        What the files are. ``"auto"``: ``.bin`` files are shards (llm.c's where the header says so,
        else nanoGPT's), others are text.
    vocab_size : int, optional
        Ids in shards must lie below it; the tokenizer's by default.

    Returns
    -------
    TokenSource
        The tokens of that split.

    Raises
    ------
    DataError
        If `spec` names no file, mixes text and shards, a file is not what it should be, or the
        split holds no token.
    """
    if format not in _FORMATS:
        raise DataError(f"data format {format!r}, expected one of {', '.join(_FORMATS)}")
    encoder: Tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
    if is_validation(split) and validation is not None:
        spec = validation
    if spec is None or spec == "stdlib":
        return text_source(stdlib_spans(split), encoder)

    files = find_files(spec)
    shards = format in ("nanogpt", "llmc")
    if format == "auto":
        bins = sum(file.path.suffix.lower() == ".bin" for file in files)
        if 0 < bins < len(files):
            raise DataError(
                f"{spec}: {bins} .bin shards and {len(files) - bins} other files, "
                "expected one kind (a glob can choose)"
            )
        shards = bins > 0
    if shards:
        spans = [shard_span(file.path, format) for file in files]
    else:
        spans = [text_span(file.path) for file in files]
    if validation is None:
        spans = split_spans(files, spans, split, by_name=shards)
    if not any(span.count for span in spans):
        raise DataError(f"{spec}: 0 tokens in the {split} split, expected at least 1")
    if shards:
        return FileSource(spans, encoder.vocab_size if vocab_size is None else vocab_size)
    return text_source(spans, encoder)
