"""Caches on disk: what comes back, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from longnet import Config, LongNet
from longnet.errors import CheckpointError
from longnet.generate import generate, load_cache, read, save_cache

CONFIG = Config(
    vocab_size=19,
    num_layers=2,
    embed_dim=32,
    num_heads=2,
    segment_lengths=(8, 24),
    dilation_rates=(1, 3),
)


def make(**options):
    config = Config(**CONFIG.to_dict() | {k: v for k, v in options.items() if k != "dtype"})
    return LongNet(config, seed=1, dtype=options.get("dtype", "float32"))


@pytest.fixture
def saved(tmp_path):
    """A model and the file of its cache of 100 tokens."""
    model, cache, path = make(), make().cache(), tmp_path / "prompt.cache"
    read(model, cache, [np.arange(100) % 19])
    save_cache(path, cache, model, tokenizer="letters-19")
    return model, path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "bfloat16"},
        {"mixer": "dense", "position": "rope"},
        {"mixer": "sliding", "window": 30},
        {"mixer": "sparse", "summary_columns": 3},
    ],
)
def test_generation_goes_on_as_if_the_prompt_had_been_read(tmp_path, rng, options):
    model, prompt = make(**options), rng.integers(0, 19, 1100)
    cache, path = model.cache(), tmp_path / "prompt.cache"
    read(model, cache, [prompt])
    save_cache(path, cache, model)
    expected = generate(model, [], 40, cache=cache)
    assert generate(model, [], 40, cache=load_cache(path, model)).tolist() == expected.tolist()
    one, two = load_cache(path, model), load_cache(path, model)
    assert one.seen == [1100]
    assert one.nbytes == cache.nbytes
    # with more of the prompt, in the same pieces
    read(model, one, [prompt[:5]])
    read(model, two, [prompt[:5]])
    np.testing.assert_array_equal(one.logits, two.logits)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prompt.cache"]


def test_a_cache_without_logits(saved, tmp_path):
    model, _ = saved
    save_cache(tmp_path / "empty", model.cache(3), model)
    found = load_cache(tmp_path / "empty", model)
    assert (found.seen, found.logits) == ([0, 0, 0], None)


def test_caches_of_others_are_refused(saved):
    model, path = saved
    load_cache(path, make(), tokenizer="letters-19")
    load_cache(path, make())
    other = make()
    other.blocks[0].ffn.fc1.weight.data.numpy()[0, 0] += 1
    for wrong in (other, make(dtype="bfloat16"), make(offsets="grouped")):
        with pytest.raises(
            CheckpointError, match=r"the cache of another model or dtype, .*expected"
        ):
            load_cache(path, wrong)
    with pytest.raises(CheckpointError, match="tokenizer letters-19, expected bytes-256"):
        load_cache(path, model, tokenizer="bytes-256")


def test_files_that_are_no_caches_are_refused(saved, tmp_path):
    model, path = saved
    with pytest.raises(CheckpointError, match="absent: cannot be read: No such file"):
        load_cache(tmp_path / "absent", model)
    content = path.read_bytes()
    for name, damaged in (("short", content[:-9]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{name}: cannot be read: "):
            load_cache(tmp_path / name, model)
    save_file({"a": np.zeros(3)}, tmp_path / "arrays")
    with pytest.raises(CheckpointError, match="found another file of arrays, expected longnet-ca"):
        load_cache(tmp_path / "arrays", model)


def test_a_file_without_one_of_its_arrays_is_refused(saved, tmp_path):
    from safetensors import safe_open

    model, path = saved
    with safe_open(path, framework="numpy") as file:
        facts = file.metadata()
    arrays = load_file(path)
    del arrays["layers.1.values"]
    save_file(arrays, tmp_path / "part", metadata=facts)
    with pytest.raises(CheckpointError, match=r"part: found the arrays \['keys'\], expected keys"):
        load_cache(tmp_path / "part", model)
    del facts["seen"]
    save_file(load_file(path), tmp_path / "facts", metadata=facts)
    with pytest.raises(CheckpointError, match="facts: found no seen, expected a whole cache"):
        load_cache(tmp_path / "facts", model)


def test_a_disk_that_refuses_leaves_what_was_there(saved, tmp_path):
    model, path = saved
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="cannot be saved: No such file"):
        save_cache(tmp_path / "nowhere" / "prompt.cache", model.cache(), model)
    with pytest.raises(CheckpointError, match="cannot be saved: "):
        save_cache(tmp_path, model.cache(), model)  # a folder
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_code_on_the_page_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs/generation.md").read_text()
    names = {}
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/generation.md", "exec"), names)
    assert [len(names[name]) for name in ("new", "several", "more")] == [20, 2, 20]
    assert (tmp_path / "prompt.cache").exists()
