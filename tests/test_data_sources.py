"""Token sources in memory and over files, against plain concatenation."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longnet.data import ArraySource, FileSource, FileSpan, TokenSource
from longnet.errors import DataError


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    dtype=st.sampled_from(["u1", "<u2", "<u4"]),
    separator=st.sampled_from([None, 10]),
    offset=st.integers(0, 9),
    seed=st.integers(0, 2**32),
)
def test_files_equal_concatenation(tmp_path_factory, lengths, dtype, separator, offset, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("spans")
    spans, expected = [], []
    for i, length in enumerate(lengths):
        items = rng.integers(0, 256, length).astype(dtype)
        path = folder / f"{i}"
        path.write_bytes(b"\xee" * offset + items.tobytes() + b"\xee" * 7)
        spans.append(FileSpan(path, offset, length, np.dtype(dtype)))
        if length:
            expected += ([separator] if expected and separator is not None else []) + items.tolist()
    source = FileSource(spans, vocab_size=256, separator=separator)
    assert isinstance(source, TokenSource)
    assert len(source) == len(expected)
    for _ in range(10):
        start = int(rng.integers(0, len(expected) + 1))
        count = int(rng.integers(0, len(expected) - start + 1))
        tokens = source.read(start, count)
        assert tokens.dtype == np.int32
        assert tokens.shape == (count,)
        assert tokens.tolist() == expected[start : start + count]


@settings(deadline=None)
@given(st.lists(st.integers(0, 999), max_size=50), st.sampled_from(["i8", "u2", "i4"]))
def test_array_source(tokens, dtype):
    source = ArraySource(np.array(tokens, dtype), vocab_size=1000)
    assert isinstance(source, TokenSource)
    assert len(source) == len(tokens)
    assert source.read(0, len(tokens)).tolist() == tokens
    assert source.read(0, len(tokens)).dtype == np.int32
    assert len(ArraySource([])) == 0
    assert ArraySource([]).read(0, 0).size == 0


def test_reads_are_copies():
    tokens = np.arange(10, dtype=np.int32)
    read = ArraySource(tokens).read(0, 10)
    read[:] = -1
    assert tokens.tolist() == list(range(10))


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, 11), (10, 1), (3, -1), (2**62, 1)])
def test_range_outside(tmp_path, start, count):
    path = tmp_path / "ten"
    path.write_bytes(bytes(range(10)))
    file_source = FileSource([FileSpan(path, 0, 10, np.dtype("u1"))])
    for source in (ArraySource(np.arange(10)), file_source):
        expected = rf"{count} tokens at position {start}, expected a range inside 0\.\.10"
        with pytest.raises(DataError, match=expected):
            source.read(start, count)


def test_ids_outside_the_vocabulary(tmp_path):
    path = tmp_path / "shard"
    np.array([1, 2, 500, 3, 900], "<u2").tofile(path)
    source = FileSource([FileSpan(path, 2, 4, np.dtype("<u2"))], vocab_size=500)
    assert source.read(2, 1).tolist() == [3]
    with pytest.raises(DataError, match=r"shard: token id 500 at position 1, expected 0\.\.499"):
        source.read(0, 4)
    with pytest.raises(DataError, match=r"token id 900 at position 3, expected 0\.\.499"):
        source.read(2, 2)
    with pytest.raises(DataError, match=r"token id -7 at position 4, expected 0\.\.99"):
        ArraySource([1, 2, 3, 4, -7], vocab_size=100).read(1, 4)
    with pytest.raises(DataError, match=r"token id 3000000000 at position 0"):
        ArraySource(np.array([3_000_000_000], np.uint32)).read(0, 1)


def test_bad_arrays():
    with pytest.raises(DataError, match="float64 array of rank 1, expected integers of rank 1"):
        ArraySource([1.5])
    with pytest.raises(DataError, match="int64 array of rank 2"):
        ArraySource(np.zeros((2, 3), np.int64))


def test_no_tokens(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="0 tokens in 1 files, expected at least 1"):
        FileSource([FileSpan(tmp_path / "empty", 0, 0, np.dtype("u1"))])


def test_file_that_shrinks_or_vanishes(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"x" * 100_000)
    source = FileSource([FileSpan(path, 0, 100_000, np.dtype("u1"))])
    assert source.read(99_999, 1).tolist() == [ord("x")]
    os.truncate(path, 50_000)
    assert source.read(49_999, 1).tolist() == [ord("x")]
    with pytest.raises(DataError, match="file holds 50000 bytes, expected at least 100000"):
        source.read(99_999, 1)
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        source.read(0, 1)


def test_fingerprints(tmp_path):
    def source(content, folder, separator=None):
        path = tmp_path / folder / "data"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return FileSource([FileSpan(path, 0, len(content), np.dtype("u1"))], separator=separator)

    content = bytes(np.random.default_rng(0).integers(0, 256, 300_000, np.uint8))
    one = source(content, "a").fingerprint
    assert one == source(content, "b").fingerprint
    changed = [content + b"x", b"x" + content[1:], content[:-1] + b"\x00", content[:100]]
    prints = [one, source(content, "a", 10).fingerprint]
    prints += [source(other, "a").fingerprint for other in changed]
    prints += [ArraySource([1, 2, 3]).fingerprint, ArraySource([1, 2, 4]).fingerprint]
    assert len(set(prints)) == len(prints)
    assert ArraySource([1, 2, 3]).fingerprint == ArraySource([1, 2, 3]).fingerprint
