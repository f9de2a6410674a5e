"""Configuration: round trips, what is refused, presets and overrides."""

import dataclasses
import json
import tomllib
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longnet.config import Config, DataConfig, ModelConfig, RunConfig, TrainConfig
from longnet.config.settings import field_types
from longnet.errors import ConfigError

PRESETS = ["125m", "350m", "760m", "2.7b", "demo"]

paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
sources = st.none() | paths | st.lists(paths, min_size=1).map(tuple)
positive = st.floats(0, exclude_min=True, allow_infinity=False)


@st.composite
def runs(draw):
    """Any valid run whose strings and numbers are as odd as they may be."""
    layers = draw(st.integers(1, 3))
    heads = draw(st.integers(1, 8))
    level = st.integers(1, 2**62).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w)))
    levels = [draw(st.lists(level, min_size=1, max_size=4)) for _ in range(layers)]
    if draw(st.booleans()):
        levels = levels[:1] * layers
        lengths, rates = zip(*levels[0], strict=True)
    else:
        lengths = tuple(tuple(w for w, _ in layer) for layer in levels)
        rates = tuple(tuple(r for _, r in layer) for layer in levels)
    model = ModelConfig(
        num_layers=layers,
        num_heads=heads,
        embed_dim=heads * 8 * draw(st.integers(2, 32)),
        num_kv_heads=draw(st.none() | st.just(1)),
        ffn_dim=draw(st.none() | st.integers(1, 2**62)),
        segment_lengths=lengths,
        dilation_rates=rates,
        mixer=draw(paths),
        position=draw(st.sampled_from(["rope", "none"])),
        norm_eps=draw(positive),
        bias=draw(st.booleans()),
    )
    data = DataConfig(draw(sources), draw(sources), draw(st.none() | paths), draw(paths))
    train = TrainConfig(
        out_dir=draw(paths),
        steps=draw(st.integers(750, 2**63 - 1)),
        seed=draw(st.integers(0, 2**63 - 1)),
        eps=draw(positive),
        threads=draw(st.none() | st.integers(1, 99)),
        recompute=draw(st.sampled_from(["none", "block", "attention-kept"])),
    )
    return RunConfig(model, data, train)


@settings(deadline=None, max_examples=40)
@given(runs())
def test_json_and_toml_give_back_the_same_run(run):
    assert RunConfig.from_json(run.to_json()) == run
    assert RunConfig.from_toml(run.to_toml()) == run
    assert RunConfig.from_dict(run.to_dict()) == run
    assert json.loads(run.to_json()) == run.to_dict()
    assert ModelConfig.from_toml(run.model.to_toml()) == run.model


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_files_give_back_the_same_run(tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    run = RunConfig.preset("demo").override(["data.train=Ünïcode/*.py"])
    run.save(path)
    assert RunConfig.load(path) == run


def test_file_changes_only_what_it_names(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("[train]\nsteps = 7000\n")
    base = RunConfig.preset("demo")
    train = dataclasses.replace(base.train, steps=7000)
    assert RunConfig.load(path, base) == dataclasses.replace(base, train=train)


@pytest.mark.parametrize("cls", [ModelConfig, DataConfig, TrainConfig])
def test_fields_that_may_be_none_are_none_by_default(cls):
    # TOML has no null: leaving the key out must mean None.
    defaults = cls().to_dict()
    for name, kind in field_types(cls).items():
        assert (type(None) in get_args(kind)) == (defaults[name] is None), name


def test_numpy_scalars_lists_and_paths_are_taken(tmp_path):
    config = Config(num_layers=np.int64(2), segment_lengths=[64], dilation_rates=[np.int32(2)])
    assert type(config.num_layers) is int
    assert config.levels(1) == ((64,), (2,))
    assert type(Config(dropout=0).dropout) is float
    assert TrainConfig(out_dir=tmp_path).out_dir == str(tmp_path)


def test_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().num_layers = 3
    assert hash(RunConfig()) == hash(RunConfig())


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[model]\nnum_layrs = 3", "model.num_layrs: unknown key, did you mean num_layers?"),
        ("[modle]\nnum_layers = 3", "modle: unknown key, did you mean model?"),
        ("num_layers = 3", "num_layers: unknown key, did you mean model.num_layers?"),
        ("[data]\nqqq = 3", "data.qqq: unknown key, expected one of train, validation, tokenizer"),
        ("model = 3", "model: found 3, expected a table of model settings"),
        ("[train]\nsteps = 1.5", "train.steps: found 1.5, expected an int of 64 bits"),
        ("[train]\nsteps = true", "train.steps: found True, expected an int of 64 bits"),
        ("[train]\nsteps = 9223372036854775808", "expected an int of 64 bits"),
        ("[train]\nclip = 'a'", "train.clip: found 'a', expected a finite float"),
        ("[train]\nclip = inf", "train.clip: found inf, expected a finite float"),
        ("[train]\nbetas = [0.9]", "train.betas: found [0.9], expected a list of 2 floats"),
        ("[train]\nout_dir = 1", "train.out_dir: found 1, expected a string"),
        ("[model]\nbias = 1", "model.bias: found 1, expected true or false"),
        ("[model]\nnorm = 'l'", "found 'l', expected 'layer_norm' or 'rms_norm'"),
        ("[model]\nnum_kv_heads = 'a'", "found 'a', expected an int of 64 bits or none"),
        ("[model]\nsegment_lengths = 3", "expected a list of ints or a list of lists of ints"),
        ("[model]\nsegment_lengths = [[1], 2]", "found [[1], 2], expected a list of ints or"),
        ("[data]\ntrain = []", "data.train: found (), expected a path, a glob, or a list"),
        ("[train", "not valid TOML"),
        ("[train]\nbetas = " + "[" * 100_000, "not valid TOML"),
        ('["a\\nb"]\nx = 1', "'a\\nb': unknown key"),
    ],
)
def test_toml_that_is_refused(toml, message):
    with pytest.raises(ConfigError) as error:
        RunConfig.from_toml(toml)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "JSON: found [1], expected an object"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"train": {"clip": NaN}}', "train.clip: found nan, expected a finite float"),
        ('{"train": {"steps": 1, "steps": 2}}', "steps: found twice, expected once"),
        ('{"train": {"steps": 1' + "0" * 5000 + "}}", "not valid JSON"),
    ],
)
def test_json_that_is_refused(text, message):
    with pytest.raises(ConfigError) as error:
        RunConfig.from_json(text)
    assert message in str(error.value)


def test_files_that_are_refused(tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"[model]\nnum_layrs = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml: model\.num_layrs: unknown key, did you"):
        RunConfig.load(bad)
    bad.write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match=r"bad\.toml: byte 2: found 255, expected UTF-8 text"):
        RunConfig.load(bad)
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        RunConfig.load(tmp_path / "absent.toml")
    for action in (RunConfig.load, RunConfig().save):
        with pytest.raises(ConfigError, match=r"found '\.yaml', expected the suffix \.toml or"):
            action(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "train.steps: found 0, expected at least 1"),
        ({"batch_size": 0}, "train.batch_size: found 0"),
        ({"threads": 0}, "train.threads: found 0, expected at least 1, or none"),
        ({"steps": 10}, "train.warmup_steps: found 750, expected 0 to train.steps = 10"),
        ({"learning_rate": 0.0}, "train.learning_rate: found 0.0, expected a value above 0"),
        ({"end_learning_rate": 1.0}, "expected 0 to train.learning_rate = 0.0006"),
        ({"betas": (0.9, 1.0)}, "train.betas: found (0.9, 1.0), expected two values in [0, 1)"),
        ({"seed": -1}, "train.seed: found -1, expected at least 0"),
        ({"dtype": "float64"}, "found 'float64', expected 'float32' or 'bfloat16' or 'float16'"),
    ],
)
def test_training_that_is_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**changes)
    assert message in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_run_presets(name):
    run = RunConfig.preset(name)
    assert run.model == Config.preset(name)
    assert run.train.out_dir == f"runs/{name}"
    assert run.train.betas == (0.9, 0.98)


def test_unknown_preset():
    with pytest.raises(ConfigError, match=r"preset '125': unknown key, did you mean 125m\?"):
        RunConfig.preset("125")


def test_override():
    run = RunConfig.preset("demo").override(
        [
            "train.steps=100",
            "train.steps = 200",
            "model.segment_lengths=[64, 128]",
            "model.dilation_rates=[1, 2]",
            "train.device=cuda:0",
            "train.out_dir=2024-01-01",
            "data.validation=none",
            'data.train="none"',
            "data.tokenizer=a=b c.json",
            "model.bias=false",
            "train.threads=none",
            "train.learning_rate=1e-3",
        ]
    )
    assert (run.train.steps, run.train.device, run.train.out_dir) == (200, "cuda:0", "2024-01-01")
    assert run.model.levels(0) == ((64, 128), (1, 2))
    assert run.data == DataConfig("none", None, "a=b c.json")
    assert (run.model.bias, run.train.threads, run.train.learning_rate) == (False, None, 1e-3)
    assert RunConfig().override([]) == RunConfig()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.steps", "override: found 'train.steps', expected section.key=value"),
        ("steps=1", "steps: unknown key, did you mean train.steps?"),
        ("trian.steps=1", "trian: unknown key, did you mean train?"),
        ("train.stpes=1", "train.stpes: unknown key, did you mean steps?"),
        ("train.steps=many", "train.steps: found 'many', expected an int of 64 bits"),
        ("train.steps=1\nkeep=2", "train.steps: found '1\\nkeep=2', expected an int of 64 bits"),
        ("train.steps=none", "train.steps: found 'none', expected an int of 64 bits"),
    ],
)
def test_overrides_that_are_refused(assignment, message):
    with pytest.raises(ConfigError) as error:
        RunConfig().override([assignment])
    assert message in str(error.value)
    with pytest.raises(ConfigError, match=r"expected a list of section\.key=value"):
        RunConfig().override(assignment)


def test_values_hold_over_assignments_and_are_checked_with_them():
    run = RunConfig.from_dict({"train": {"batch_size": 4, "data_parallel": 2}})
    changed = run.override(
        ["train.batch_size=3", "train.seed=1"], {"train": {"data_parallel": 3, "seed": 2}}
    )
    assert (changed.train.batch_size, changed.train.data_parallel, changed.train.seed) == (3, 3, 2)


def test_toml_is_laid_out_in_sections():
    assert list(tomllib.loads(RunConfig().to_toml())) == ["model", "data", "train"]
