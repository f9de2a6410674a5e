"""nanoGPT and llm.c shards: both formats, beyond 2^31 tokens, and every way of being broken."""

from __future__ import annotations

import os

import numpy as np
import pytest

from longnet.data import FileSource, shard_span
from longnet.errors import DataError


def write_llmc(path, tokens, magic=20240520, version=1, dtype="<u2", count=None):
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    path.write_bytes(header.tobytes() + np.asarray(tokens).astype(dtype).tobytes())
    return path


def read_all(path, format="auto"):
    source = FileSource([shard_span(path, format)])
    return source.read(0, len(source)).tolist()


@pytest.mark.parametrize("format", ["auto", "nanogpt"])
@pytest.mark.parametrize("count", [1, 3, 511, 512, 513, 70_000])
def test_nanogpt(tmp_path, format, count):
    tokens = np.random.default_rng(count).integers(0, 50257, count).astype("<u2")
    tokens.tofile(tmp_path / "train.bin")
    assert read_all(tmp_path / "train.bin", format) == tokens.tolist()


@pytest.mark.parametrize("format", ["auto", "llmc"])
def test_llmc(tmp_path, format):
    rng = np.random.default_rng(0)
    gpt2 = rng.integers(0, 50257, 1001)
    assert read_all(write_llmc(tmp_path / "2.bin", gpt2), format) == gpt2.tolist()
    llama = rng.integers(0, 128256, 1001)
    path = write_llmc(tmp_path / "3.bin", llama, 20240801, 7, "<u4")
    assert read_all(path, format) == llama.tolist()


def test_explicit_nanogpt_wins_over_a_header(tmp_path):
    path = write_llmc(tmp_path / "x.bin", [1, 2, 3])
    assert len(read_all(path, "nanogpt")) == 512 + 3


def test_zeros_are_nanogpt(tmp_path):
    np.zeros(5000, "<u2").tofile(tmp_path / "zeros.bin")
    assert read_all(tmp_path / "zeros.bin") == [0] * 5000


def test_more_than_2_to_the_31_tokens_over_sparse_shards(tmp_path):
    per_shard = 1_200_000_001
    spans = []
    for i in range(3):
        path = tmp_path / f"{i}.bin"
        path.touch()
        os.truncate(path, 2 * per_shard)
        marks = np.memmap(path, "<u2", mode="r+")
        marks[0], marks[-1] = 10 + i, 20 + i
        del marks
        spans.append(shard_span(path))
    source = FileSource(spans, vocab_size=50257)
    assert len(source) == 3 * per_shard > 2**31
    assert source.read(0, 2).tolist() == [10, 0]
    assert source.read(per_shard - 2, 4).tolist() == [0, 20, 11, 0]
    assert source.read(2 * per_shard - 2, 4).tolist() == [0, 21, 12, 0]
    assert source.read(2**31, 3).tolist() == [0, 0, 0]
    assert source.read(3 * per_shard - 2, 2).tolist() == [0, 22]
    assert source.fingerprint != FileSource(spans[:2], vocab_size=50257).fingerprint


def test_one_file_beyond_2_to_the_31_tokens(tmp_path):
    path, count = tmp_path / "huge.bin", 2**31 + 1000
    path.touch()
    os.truncate(path, 2 * count)
    with path.open("r+b") as file:
        file.seek(2 * (2**31 + 5))
        file.write(b"\x07\x00")
    source = FileSource([shard_span(path)], vocab_size=256)
    assert len(source) == count
    assert source.read(2**31 + 4, 3).tolist() == [0, 7, 0]


@pytest.mark.parametrize("format", ["auto", "llmc"])
def test_wrong_magic(tmp_path, format):
    path = write_llmc(tmp_path / "x.bin", [1, 2, 3], magic=20240521)
    with pytest.raises(DataError, match="magic number 20240521, expected 20240520 or 20240801"):
        shard_span(path, format)


def test_raw_tokens_called_llmc(tmp_path):
    np.arange(1, 2000, dtype="<u2").tofile(tmp_path / "x.bin")
    with pytest.raises(DataError, match="magic number 131073, expected 20240520"):
        shard_span(tmp_path / "x.bin", "llmc")


def test_wrong_version(tmp_path):
    path = write_llmc(tmp_path / "x.bin", [1, 2, 3], version=7)
    with pytest.raises(DataError, match="version 7, expected 1 with magic number 20240520"):
        shard_span(path)


@pytest.mark.parametrize("count", [1000, 2, -1])
def test_header_and_size_disagree(tmp_path, count):
    path = write_llmc(tmp_path / "x.bin", [1, 2, 3], count=count)
    with pytest.raises(DataError, match=rf"holds 3 tokens \(1030 bytes\), expected {count} as"):
        shard_span(path)


def test_truncated_inside_a_token_or_the_header(tmp_path):
    path = write_llmc(tmp_path / "x.bin", [1, 2, 3])
    os.truncate(path, 1029)
    with pytest.raises(DataError, match=r"holds 2 tokens \(1029 bytes\), expected 3"):
        shard_span(path)
    os.truncate(path, 100)
    with pytest.raises(DataError, match=r"100 bytes, expected a llm\.c header of 1024"):
        shard_span(path)


def test_odd_empty_missing_and_unknown_format(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc")
    with pytest.raises(DataError, match="3 bytes, expected an even number"):
        shard_span(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes, expected a shard"):
        shard_span(path)
    with pytest.raises(DataError, match=r"missing\.bin: No such file"):
        shard_span(tmp_path / "missing.bin")
    with pytest.raises(DataError, match="'raw', expected one of auto, nanogpt, llmc"):
        shard_span(path, "raw")
