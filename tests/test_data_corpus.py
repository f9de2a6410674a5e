"""The standard library as a corpus."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from longnet.data import Batches, stdlib_source
from longnet.data.corpus import stdlib_files, stdlib_spans
from longnet.errors import DataError


def test_files():
    names = {file.relative for file in stdlib_files()}
    assert {"argparse.py", "json/decoder.py", "asyncio/base_events.py"} <= names
    assert all(name.endswith(".py") for name in names)
    banned = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
    assert not [name for name in names if banned & set(name.split("/")[:-1])]
    assert not [name for name in names if "_sysconfigdata" in name]


def test_split_is_by_file_and_a_few_per_cent():
    train, validation = (stdlib_spans(split) for split in ("train", "validation"))
    paths = [{span.path for span in spans} for spans in (train, validation)]
    assert not paths[0] & paths[1]
    assert paths[0] | paths[1] == {file.path for file in stdlib_files()}
    bytes_held = [sum(span.count for span in spans) for spans in (train, validation)]
    assert 0.03 < bytes_held[1] / sum(bytes_held) < 0.12
    assert min(bytes_held) > 200_000


def test_content():
    source = stdlib_source("validation")
    tokens = source.read(0, len(source))
    expected = b"\n".join(content for span in source.spans if (content := span.path.read_bytes()))
    assert tokens.astype(np.uint8).tobytes() == expected


def test_the_same_in_another_process():
    code = (
        "from longnet.data import stdlib_source;"
        "print(*(stdlib_source(s).fingerprint for s in ('train', 'validation')))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, env=None, check=True
    )
    here = [stdlib_source(split).fingerprint for split in ("train", "validation")]
    assert result.stdout.split() == here
    assert here[0] != here[1]


def test_no_source(monkeypatch, tmp_path):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_it.py").write_text("pass\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"0 \.py files, expected the standard library's source"):
        stdlib_source("train")


def test_unknown_split():
    with pytest.raises(DataError, match="split 'valid', expected train or validation"):
        stdlib_source("valid")


def test_split_does_not_depend_on_where_python_lies(monkeypatch, tmp_path):
    names = [f"module{i}.py" for i in range(100)]
    splits = []
    for folder in ("here", "there/lib"):
        root = tmp_path / folder
        root.mkdir(parents=True)
        for name in names:
            (root / name).write_text(name)
        monkeypatch.setattr(sysconfig, "get_path", lambda name, root=root: str(root))
        splits.append([Path(span.path).name for span in stdlib_spans("validation")])
    assert splits[0] == splits[1] != []


def test_batches_of_the_demo():
    inputs, targets = next(Batches(stdlib_source("train"), 2, 4096, seed=0))
    assert inputs.shape == targets.shape == (2, 4096)
    assert inputs.min() >= 0
    assert inputs.max() < 256
