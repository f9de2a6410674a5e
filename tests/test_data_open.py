"""open_source: the one entry the trainer calls."""

from __future__ import annotations

import numpy as np
import pytest

from longnet.data import ByteTokenizer, open_source, stdlib_source
from longnet.errors import DataError


class Words:
    """Space-separated numbers as ids: a tokenizer that is not bytes."""

    name = fingerprint = "words"
    vocab_size = 100
    end_of_text = 99

    def encode(self, text):
        text = text.decode() if isinstance(text, bytes) else text
        return np.array([int(word) for word in text.split()], np.int32)

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]


def content(source):
    return source.read(0, len(source)).tolist()


def text(source):
    return ByteTokenizer().decode(content(source))


def test_default_is_the_standard_library():
    for split in ("train", "validation"):
        expected = stdlib_source(split).fingerprint
        assert open_source(None, split).fingerprint == expected
        assert open_source("stdlib", split, ByteTokenizer()).fingerprint == expected


def test_one_file(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{i:09}\n" for i in range(100)))
    train, validation = (text(open_source(path, split)) for split in ("train", "validation"))
    assert train + validation == path.read_text()
    assert len(validation) == 50


def test_few_files_join_with_newlines(tmp_path):
    (tmp_path / "b.txt").write_text("b" * 40)
    (tmp_path / "a.txt").write_text("a" * 20)
    (tmp_path / "empty.txt").touch()
    assert text(open_source(tmp_path, "train")) == "a" * 19 + "\n" + "b" * 38
    assert text(open_source(f"{tmp_path}/*.txt", "validation")) == "a\nbb"
    assert text(open_source([tmp_path / "b.txt", tmp_path / "a.txt"], "validation")) == "bb\na"


def test_many_files_are_split_by_file(tmp_path):
    for i in range(64):
        (tmp_path / f"{i}.txt").write_text(f"file {i}")
    train, validation = (
        set(text(open_source(tmp_path, split)).split("\n")) for split in ("train", "validation")
    )
    assert not train & validation
    assert train | validation == {f"file {i}" for i in range(64)}
    assert 0 < len(validation) < 16


def test_explicit_validation(tmp_path):
    (tmp_path / "t").write_text("training text")
    (tmp_path / "v").write_text("other text")
    assert text(open_source(tmp_path / "t", "train", validation=tmp_path / "v")) == "training text"
    assert (
        text(open_source(tmp_path / "t", "validation", validation=tmp_path / "v")) == "other text"
    )
    stdlib = open_source(tmp_path / "t", "validation", validation="stdlib")
    assert stdlib.fingerprint == stdlib_source("validation").fingerprint


def test_shards(tmp_path):
    rng = np.random.default_rng(0)
    train, validation = rng.integers(0, 50257, 1000), rng.integers(0, 50257, 100)
    train.astype("<u2").tofile(tmp_path / "train.bin")
    header = np.zeros(256, "<i4")
    header[:3] = 20240801, 7, 100
    (tmp_path / "val.bin").write_bytes(header.tobytes() + validation.astype("<u4").tobytes())
    assert content(open_source(tmp_path, "train", vocab_size=50257)) == train.tolist()
    assert content(open_source(tmp_path, "validation", vocab_size=50257)) == validation.tolist()
    tail = open_source(tmp_path / "train.bin", "validation", vocab_size=50257)
    assert content(tail) == train[-50:].tolist()
    with pytest.raises(DataError, match=r"train\.bin: token id \d+ at position 0, expected 0\.\.2"):
        content(open_source(tmp_path, "train"))
    with pytest.raises(DataError, match="magic number"):
        open_source(tmp_path, "train", format="llmc")


def test_explicit_formats(tmp_path):
    (tmp_path / "tokens").write_bytes(np.arange(40, dtype="<u2").tobytes())
    assert content(open_source(tmp_path / "tokens", "train", format="nanogpt")) == list(range(38))
    (tmp_path / "x.bin").write_bytes(b"x" * 41)
    assert text(open_source(tmp_path / "x.bin", "train", format="text")) == "x" * 39


def test_tokenizer(tmp_path):
    (tmp_path / "a").write_text("1 2 3\n" * 20)
    (tmp_path / "b").write_text("7 8 9\n" * 20)
    source = open_source(tmp_path, "train", Words(), validation="stdlib")
    assert content(source) == [1, 2, 3] * 20 + [99] + [7, 8, 9] * 20
    words = Words()
    words.end_of_text = None
    assert content(open_source(tmp_path, "validation", words)) == [1, 2, 3, 7, 8, 9]


def test_long_text_is_encoded_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("longnet.data.text._PIECE_BYTES", 64)
    ids = np.random.default_rng(0).integers(0, 99, 3000)
    lines = [" ".join(map(str, ids[i : i + 10])) for i in range(0, 3000, 10)]
    (tmp_path / "long").write_text("\n".join(lines))
    pieces = []

    class Recording(Words):
        def encode(self, text):
            pieces.append(text)
            return super().encode(text)

    source = open_source(tmp_path / "long", "train", Recording(), validation="stdlib")
    assert content(source) == ids.tolist()
    assert len(pieces) > 50
    assert max(map(len, pieces)) <= 64


def test_a_line_longer_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("longnet.data.text._PIECE_BYTES", 8)
    (tmp_path / "long").write_bytes(b"1\n" + b"0" * 50 + b"\n5 ")
    source = open_source(tmp_path / "long", "train", Words(), validation="stdlib")
    assert sum(content(source)) == 6


def test_bad_requests(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a folder with 0 files"):
        open_source(tmp_path / "empty", "train")
    with pytest.raises(DataError, match=r"\*\.rs: glob matches 0 files"):
        open_source(f"{tmp_path}/*.rs", "train")
    with pytest.raises(DataError, match="split 'test', expected train or validation"):
        open_source(None, "test")
    with pytest.raises(DataError, match="'csv', expected one of auto, nanogpt, llmc, text"):
        open_source(None, "train", format="csv")
    (tmp_path / "x.bin").write_bytes(b"xx")
    (tmp_path / "y.txt").write_bytes(b"yy")
    with pytest.raises(DataError, match=r"1 \.bin shards and 1 other files, expected one kind"):
        open_source(tmp_path, "train")
    with pytest.raises(DataError, match="0 tokens in the validation split, expected at least 1"):
        open_source(tmp_path / "y.txt", "validation")
    (tmp_path / "blank").write_bytes(b" " * 100)
    with pytest.raises(DataError, match="0 tokens in 1 files, expected at least 1"):
        open_source(tmp_path / "blank", "train", Words())
