"""Tokenizers: round trips, identity and bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longnet.data import ByteTokenizer, JsonTokenizer, Tokenizer, load_tokenizer
from longnet.errors import DataError

TEXT = "def f(x):\n    return x + 1  # größer\n"


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 10, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@settings(deadline=None)
@given(st.text())
def test_bytes_round_trip_of_text(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.num_bytes(ids) == len(text.encode())


@settings(deadline=None)
@given(st.binary())
def test_bytes_decode_never_fails(data):
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(data).tolist() == list(data)
    assert tokenizer.decode(list(data)) == data.decode("utf-8", "replace")


def test_protocol_and_default(tokenizer_json):
    for tokenizer in (load_tokenizer(), load_tokenizer("bytes"), load_tokenizer(tokenizer_json)):
        assert isinstance(tokenizer, Tokenizer)
    assert isinstance(load_tokenizer(None), ByteTokenizer)
    assert load_tokenizer().fingerprint == load_tokenizer("bytes").fingerprint


@settings(deadline=None)
@given(text=st.text())
def test_json_round_trip(tokenizer_json, text):
    tokenizer = load_tokenizer(tokenizer_json)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.num_bytes(ids) == len(text.encode())


def test_json_properties(tokenizer_json):
    tokenizer = load_tokenizer(tokenizer_json)
    ids = tokenizer.encode(TEXT)
    assert ids.size < len(TEXT.encode())
    assert ids.max() < tokenizer.vocab_size <= 300
    assert tokenizer.end_of_text == 0
    assert tokenizer.decode([0]) == "<|endoftext|>"
    assert tokenizer.num_bytes([0, *ids]) == len(TEXT.encode())
    assert tokenizer.encode(b"\xff").size > 0


def test_json_folder_and_fingerprint(tokenizer_json, tmp_path):
    by_file, by_folder = load_tokenizer(tokenizer_json), load_tokenizer(tokenizer_json.parent)
    assert by_file.fingerprint == by_folder.fingerprint
    content = json.loads(tokenizer_json.read_text())
    content["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert load_tokenizer(tmp_path).fingerprint != by_file.fingerprint


def test_json_truncation_and_padding_are_turned_off(tokenizer_json, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    other = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    other.enable_truncation(4)
    other.enable_padding(length=1000)
    other.save(str(tmp_path / "short.json"))
    np.testing.assert_array_equal(
        load_tokenizer(tmp_path / "short.json").encode(TEXT),
        load_tokenizer(tokenizer_json).encode(TEXT),
    )


@pytest.mark.parametrize("bad", [-1, 256, 2**40])
def test_bytes_bad_id(bad):
    with pytest.raises(DataError, match=rf"token id {bad}, expected 0\.\.255"):
        ByteTokenizer().decode([65, bad])


def test_bad_ids(tokenizer_json):
    with pytest.raises(DataError, match="float64, expected integers"):
        ByteTokenizer().decode([1.5])
    with pytest.raises(DataError, match="token id 4000, expected 0"):
        load_tokenizer(tokenizer_json).decode([4000])


def test_batch(tokenizer_json):
    texts = [TEXT, b"", TEXT.encode() * 3, "x"]
    for tokenizer in (load_tokenizer(), load_tokenizer(tokenizer_json)):
        for ids, text in zip(tokenizer.encode_batch(texts), texts, strict=True):
            np.testing.assert_array_equal(ids, tokenizer.encode(text))
            assert ids.dtype == np.int32


def test_text_that_a_vocabulary_cannot_express(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"one": 0}, unk_token="[UNK]"))
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(DataError, match=r"words\.json: .*expected text that it can encode"):
        load_tokenizer(tmp_path / "words.json").encode("two")


def test_surrogates():
    assert ByteTokenizer().encode(b"a\xff".decode("utf-8", "surrogateescape")).tolist() == [97, 255]
    with pytest.raises(DataError, match=r"U\+D800 at position 1"):
        ByteTokenizer().encode("a\ud800")


def test_bad_files(tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=r"No such file.*expected a tokenizer\.json"):
        load_tokenizer(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{ not json\n")
    with pytest.raises(DataError, match=r"broken\.json: .*expected a tokenizer\.json") as caught:
        JsonTokenizer(tmp_path / "broken.json")
    assert "\n" not in str(caught.value)


def test_library_is_imported_only_for_a_tokenizer_json(tmp_path):
    code = "import sys, longnet.data; print('tokenizers' in sys.modules)"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr


def test_missing_library(monkeypatch, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match="'tokenizers' package is not installed"):
        load_tokenizer(tmp_path)
