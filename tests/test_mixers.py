"""The registry, the mixers that come with longnet, and the recipe for another one."""

import re
from pathlib import Path

import numpy as np
import pytest
from gradients import variable
from reference import longnet as reference

import longnet
from longnet import Config, mixers, nn
from longnet.model import LongNet
from longnet.optim import AdamW

SMALL = {
    "vocab_size": 11,
    "num_layers": 1,
    "embed_dim": 48,
    "num_heads": 3,
    "segment_lengths": (4, 8, 16),
    "summary_columns": 3,
    "dilation_rates": (1, 2, 3),
    "xpos_scale_base": 16.0,
}
MIXERS = mixers.names()  # every file of the folder
RECIPE = Path(__file__).parents[1] / "docs/adding_a_mixer.md"


def make(config, seed=0, device="cpu"):
    mixer = mixers.make(config.mixer, config, 0, device=device)
    nn.initialise(((f"mixer.{name}", p) for name, p in mixer.named_parameters()), seed)
    return mixer


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("placement", ["sub", "pre"])
@pytest.mark.parametrize("kv_heads", [1, 3])
@pytest.mark.parametrize("position", ["xpos", "rope", "alibi", "none"])
def test_against_the_reference(rng, mixer, placement, kv_heads, position):
    config = Config(
        **SMALL, mixer=mixer, norm_placement=placement, num_kv_heads=kv_heads, position=position
    )
    module, x = make(config), rng.standard_normal((2, 21, 48)).astype(np.float32)
    weights = {name: p.data.numpy().astype(float) for name, p in module.named_parameters()}
    for name, array in weights.items():
        if name.endswith("bias"):
            array[:] = rng.standard_normal(array.shape)
    module.load_state_dict({name: array.astype(np.float32) for name, array in weights.items()})
    levels = ((21,), (1,)) if mixer == "dense" else config.levels(0)
    weights = {
        f"mixer.{name}": p.data.numpy().astype(float) for name, p in module.named_parameters()
    }
    expected = reference.attention(config, weights, "mixer", x.astype(float), levels)
    out = module(variable(x)).data.numpy()
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_dense_is_dilated_with_one_level_that_holds_everything(rng):
    x = variable(rng.standard_normal((1, 13, 48)))
    one = SMALL | {"segment_lengths": (16,), "dilation_rates": (1,), "position": "rope"}
    dense, dilated = (make(Config(**one, mixer=name)) for name in ("dense", "dilated"))
    np.testing.assert_array_equal(dense(x).data.numpy(), dilated(x).data.numpy())


def test_attention_dropout_only_in_training(rng):
    module = make(Config(**SMALL, attention_dropout=0.5))
    x = variable(rng.standard_normal((1, 13, 48)))
    first, second = module(x).data.numpy(), module(x).data.numpy()
    assert not np.array_equal(first, second)  # the seeds go on
    module.eval()
    np.testing.assert_array_equal(module(x).data.numpy(), module(x).data.numpy())


def test_registry_names_what_is_known():
    assert {"dense", "dilated"} <= set(mixers.names())
    with pytest.raises(
        longnet.ConfigError, match=r"'window', expected one of dense, dilated, sliding, sparse"
    ):
        mixers.make("window", Config(mixer="window"), 0)
    with pytest.raises(longnet.ConfigError, match="'dense': registered twice"):
        mixers.register("dense")(nn.Module)


def test_xpos_that_would_overflow_is_refused(rng):
    config = Config(
        **SMALL | {"xpos_scale_base": 0.2, "segment_lengths": (16, 8, 4)}, mixer="dense"
    )
    module = make(config)
    module(variable(rng.standard_normal((1, 25, 48))))
    with pytest.raises(longnet.ConfigError, match=r"xpos_scale_base: found 0\.2, .* of 26"):
        module(variable(rng.standard_normal((1, 26, 48))))


@pytest.fixture
def recipe(monkeypatch):
    """The doc's own example, registered for the length of a test."""
    blocks = re.findall(r"```python\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    monkeypatch.setattr(mixers, "_mixers", dict(mixers._mixers))
    exec(compile(blocks[0], str(RECIPE), "exec"), {"__name__": "longnet.mixers.window"})
    return blocks


def test_the_recipe_makes_a_model_that_learns(recipe, rng):
    config = Config(**SMALL | {"num_layers": 2}, mixer="window")
    model = LongNet(config)
    assert model.num_parameters() == config.num_parameters()
    tokens = rng.integers(0, 11, (1, 20)).astype(np.int32)
    losses = []
    optimizer = AdamW(model.parameters())
    for _ in range(20):
        optimizer.zero_grad()
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        losses.append(loss.item())
        loss.backward()
        optimizer.step(1e-2)
    assert losses[-1] < 0.5 * losses[0]


def test_the_recipe_s_own_check_holds(recipe):
    for block in recipe[1:]:
        exec(compile(block, str(RECIPE), "exec"), {})


def test_a_sparse_block_shorter_than_its_summary():
    config = Config(**SMALL | {"summary_columns": 5}, mixer="sparse")
    with pytest.raises(longnet.ConfigError, match="summary_columns: found 5, expected at most 4"):
        make(config)
