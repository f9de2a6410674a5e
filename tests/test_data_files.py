"""Finding files and splitting them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longnet.data.files import DataFile, find_files, in_validation, path_hash, split_spans
from longnet.data.sources import FileSpan
from longnet.data.text import text_span
from longnet.errors import DataError


@pytest.fixture
def tree(tmp_path):
    names = ["b.py", "a.py", "sub/c.py", "sub/deep/d.txt", ".hidden", "sub/.git/x", "ä.py"]
    for name in [*names, "__pycache__/a.pyc"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def relative(files):
    return [file.relative for file in files]


def test_folder(tree):
    expected = ["a.py", "b.py", "sub/c.py", "sub/deep/d.txt", "ä.py"]
    assert relative(find_files(tree)) == expected
    assert relative(find_files(f"{tree}/")) == expected


def test_globs(tree):
    assert relative(find_files(f"{tree}/*.py")) == ["a.py", "b.py", "ä.py"]
    assert relative(find_files(f"{tree}/**/*.py")) == ["a.py", "b.py", "sub/c.py", "ä.py"]
    assert relative(find_files(f"{tree}/s*/c.py")) == ["sub/c.py"]


def test_relative_glob_and_home(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert relative(find_files("[ab].py")) == ["a.py", "b.py"]
    assert relative(find_files(".")) == relative(find_files(tree))
    monkeypatch.setenv("HOME", str(tree))
    assert relative(find_files("~/sub")) == ["c.py", "deep/d.txt"]


def test_lists_keep_their_order_and_drop_repeats(tree):
    files = find_files([tree / "sub/c.py", tree / "a.py", f"{tree}/*.py", tree / "a.py"])
    assert [file.path.name for file in files] == ["c.py", "a.py", "b.py", "ä.py"]


def test_a_name_with_glob_characters_is_taken_as_it_is(tmp_path):
    (tmp_path / "[x].txt").write_text("1")
    (tmp_path / "x.txt").write_text("2")
    assert [file.path.name for file in find_files(tmp_path / "[x].txt")] == ["[x].txt"]


def test_nothing_found(tree):
    (tree / "empty").mkdir()
    (tree / "empty/.hidden").write_text("x")
    with pytest.raises(DataError, match=r"empty: a folder with 0 files, expected at least 1"):
        find_files(tree / "empty")
    with pytest.raises(DataError, match=r"\*\.rs: glob matches 0 files, expected at least 1"):
        find_files(f"{tree}/*.rs")
    with pytest.raises(DataError, match=r"nowhere.*no such file, expected a file, a folder or"):
        find_files(tree / "nowhere")
    with pytest.raises(DataError, match="no such file"):
        find_files("")
    with pytest.raises(DataError, match="null byte, expected a file, a folder or a glob"):
        find_files("a\0b")
    with pytest.raises(DataError, match="an empty list, expected at least one"):
        find_files([])


def test_special_files_and_dangling_links(tree):
    os.mkfifo(tree / "pipe")
    (tree / "dangling").symlink_to(tree / "nowhere")
    assert "pipe" not in relative(find_files(tree))
    assert "dangling" not in relative(find_files(tree))
    with pytest.raises(DataError, match="not a regular file"):
        find_files(tree / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder(tree):
    (tree / "sub").chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied, expected a readable folder"):
            find_files(tree)
        with pytest.raises(DataError, match="Permission denied, expected a file, a folder"):
            find_files(tree / "sub/anything")
    finally:
        (tree / "sub").chmod(0o755)


def test_hash_is_a_fixed_function():
    # The split of every corpus rests on these: they must never change.
    assert path_hash("argparse.py") == 0x56DD8D1DC3FD7954
    assert path_hash("json/decoder.py") == 0x1D2B2A9A82B8610D
    share = np.mean([in_validation(f"folder/{i}.py") for i in range(20_000)])
    assert abs(share - 0.07) < 0.006


def spans_of(names, dtype="<u2"):
    """Files of 1000 items that need not exist."""
    files = [DataFile(Path(name), name) for name in names]
    return files, [FileSpan(file.path, 0, 1000, np.dtype(dtype)) for file in files]


@settings(deadline=None)
@given(st.sets(st.integers(0, 10**6), min_size=32, max_size=300))
def test_many_files_are_split_by_file(numbers):
    files, spans = spans_of([f"{number}.bin" for number in sorted(numbers)])
    train = split_spans(files, spans, "train", by_name=True)
    validation = split_spans(files, spans, "validation", by_name=True)
    assert train
    assert validation
    assert sorted(map(str, train + validation)) == sorted(map(str, spans))
    held_out = {str(span.path) for span in validation}
    assert {file.relative for file in files if in_validation(file.relative)} <= held_out
    # Another file moves none of these, but for the one that is taken when no hash is low enough.
    more_files, more_spans = spans_of([file.relative for file in files] + ["another.bin"])
    more = {str(s.path) for s in split_spans(more_files, more_spans, "validation", by_name=True)}
    assert len(held_out - more) <= 1


def test_few_files_give_their_tails():
    files, spans = spans_of(["a", "b"])
    train = split_spans(files, spans, "train", by_name=True)
    validation = split_spans(files, spans, "validation", by_name=True)
    assert [(s.offset, s.count) for s in train] == [(0, 950), (0, 950)]
    assert [(s.offset, s.count) for s in validation] == [(1900, 50), (1900, 50)]


@pytest.mark.parametrize(
    "names",
    [
        ["train.bin", "val.bin"],
        ["fineweb_train_000001.bin", "fineweb_train_000002.bin", "fineweb_val_000000.bin"],
        ["interval.bin", "x-VALIDATION-1.bin"],
    ],
)
def test_shards_that_call_themselves_validation(names):
    files, spans = spans_of(names)
    assert split_spans(files, spans, "validation", by_name=True) == spans[-1:]
    assert split_spans(files, spans, "train", by_name=True) == spans[:-1]
    assert len(split_spans(files, spans, "train", by_name=False)) == len(spans)


def test_only_validation_shards_are_split_by_tail():
    files, spans = spans_of(["val_0.bin", "val_1.bin"])
    assert [s.count for s in split_spans(files, spans, "train", by_name=True)] == [950, 950]


@settings(deadline=None)
@given(st.text(min_size=20, max_size=200))
def test_text_is_cut_between_characters(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(text.encode())
    file, span = [DataFile(path, "text")], [text_span(path)]
    parts = []
    for split in ("train", "validation"):
        (part,) = split_spans(file, span, split, by_name=False)
        content = part.read(0, part.count).tobytes() if part.count else b""
        parts.append(content.decode())  # raises where a character is cut in two
    assert "".join(parts) == text
    assert len(parts[1].encode()) <= len(text.encode()) / 20


def test_unknown_split():
    with pytest.raises(DataError, match="split 'test', expected train or validation"):
        split_spans([], [], "test", by_name=False)
