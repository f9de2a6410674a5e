"""The model's settings: what is refused, and the sizes that follow."""

import math

import pytest

from longnet.config import Config
from longnet.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "model.vocab_size: found 0, expected at least 1"),
        ({"num_layers": -1}, "model.num_layers: found -1, expected at least 1"),
        ({"num_heads": 0}, "model.num_heads: found 0, expected at least 1"),
        ({"ffn_dim": 0}, "model.ffn_dim: found 0, expected at least 1"),
        ({"num_heads": 7}, "model.embed_dim: found 768, expected a multiple of num_heads = 7"),
        ({"embed_dim": 96}, "expected 12 heads of 16 to 256 in steps of 8, not of 8"),
        ({"embed_dim": 12 * 20}, "not of 20"),
        ({"embed_dim": 12 * 264}, "not of 264"),
        ({"num_kv_heads": 5}, "model.num_kv_heads: found 5, expected a divisor of num_heads = 12"),
        ({"num_kv_heads": 0}, "model.num_kv_heads: found 0, expected at least 1"),
        ({"norm_eps": 0.0}, "model.norm_eps: found 0.0, expected a value above 0"),
        ({"dropout": 1.0}, "model.dropout: found 1.0, expected a probability in [0, 1)"),
        ({"window": 0}, "model.window: found 0, expected at least 1"),
        ({"summary_columns": 0}, "model.summary_columns: found 0, expected at least 1"),
        ({"mixer": ""}, "model.mixer: found '', expected the name of a mixer"),
        ({"segment_lengths": (), "dilation_rates": ()}, "found [], expected at least one level"),
        ({"dilation_rates": (1, 2)}, "found [1, 2], expected 5 rates, one for each"),
        ({"dilation_rates": (1, 2, 4, 6, 0)}, "found 0, expected 1 to its segment length, 32768"),
        ({"segment_lengths": (8,), "dilation_rates": (9,)}, "model.dilation_rates: found 9"),
        ({"segment_lengths": (0,), "dilation_rates": (1,)}, "model.segment_lengths: found 0"),
        (
            {"segment_lengths": ((8,),), "dilation_rates": (1,)},
            "number of lists: found 1, expected",
        ),
        (
            {"num_layers": 2, "segment_lengths": ((8,), (8, 4)), "dilation_rates": (1,)},
            "model.dilation_rates of layer 1: found [1], expected 2 rates",
        ),
        (
            {"segment_lengths": (48, 64), "dilation_rates": (1, 1)},
            "model.segment_lengths: found 48, expected a divisor of the longest, 64",
        ),
        (
            {"segment_lengths": (4096, 4097), "dilation_rates": (1, 1), "position": "alibi"},
            "found [4096, 4097], expected a common multiple of at most 16777216",
        ),
        (
            {"embed_dim": 512, "num_heads": 2, "position": "alibi"},
            "model.embed_dim: found 512, expected heads of at most 248 with 'alibi'",
        ),
        ({"position": "learned"}, "max_positions: found None, expected at least 1 with position"),
        ({"max_positions": 8}, "max_positions: found 8, expected None but with position 'learned'"),
        (
            {"position_scaling": "ntk"},
            "position_scaling: found 'ntk', expected none but for 'rope'",
        ),
        (
            {"position": "rope", "position_scaling": "yarn", "position_factor": 2},
            "model.position_length: found None, expected at least 1 with position_scaling 'yarn'",
        ),
        ({"position_length": 8}, "position_length: found 8, expected None but with"),
        (
            {"position": "rope", "position_scaling": "ntk", "position_factor": 0.5},
            "model.position_factor: found 0.5, expected at least 1",
        ),
        ({"position": "rope", "position_factor": 2}, "found 2.0, expected 1 with no scaling"),
    ],
)
def test_models_that_are_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        Config(**changes)
    assert message in str(error.value)


def test_xpos_scale_base_that_the_message_names_would_do():
    levels = {"segment_lengths": (2**20,), "dilation_rates": (1,)}
    with pytest.raises(ConfigError, match=r"found 512\.0, expected at least 8211"):
        Config(**levels)
    Config(**levels, xpos_scale_base=8211)
    Config(**levels, position="rope")
    # The bound itself: the largest scale, half a segment from its centre, fits float32.
    assert math.log(3.5) * 2**19 / 8211 <= 80 < math.log(3.5) * 2**19 / 8210


def test_levels_of_each_layer():
    config = Config(num_layers=2, segment_lengths=((64,), (128, 32)), dilation_rates=((1,), (2, 1)))
    assert [config.levels(i) for i in range(2)] == [((64,), (1,)), ((128, 32), (2, 1))]
    with pytest.raises(ConfigError, match="layer: found 2, expected 0 to 1"):
        config.levels(2)


def test_sizes_that_follow():
    assert (Config().head_dim, Config().kv_heads, Config().ffn_width) == (64, 12, 3072)
    assert Config(activation="swiglu").ffn_width == 2048
    assert Config(embed_dim=192, num_heads=6, activation="swiglu").ffn_width == 512
    assert Config(embed_dim=200, num_heads=5, activation="swiglu").ffn_width == 576
    assert Config(num_kv_heads=3, ffn_dim=7).kv_heads == 3


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("placement", ["sub", "pre"])
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_num_parameters_counts_every_array(tied, bias, norm, placement, activation):
    e, kv, f, v = 64, 32, 40, 10
    linears = [(e, e), (kv, e), (kv, e), (e, e), (f, e), (e, f)]
    linears += [(f, e)] if activation == "swiglu" else []
    norms = [e, e] + ([e, f] if placement == "sub" else [])
    per_norm = 2 if norm == "layer_norm" else 1
    layer = [math.prod(shape) + bias * shape[0] for shape in linears]
    layer += [per_norm * width for width in norms]
    expected = 3 * sum(layer) + per_norm * e + v * e * (1 if tied else 2)
    config = Config(
        vocab_size=v,
        num_layers=3,
        embed_dim=e,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=f,
        norm=norm,
        norm_placement=placement,
        activation=activation,
        tie_embeddings=tied,
        bias=bias,
    )
    assert config.num_parameters() == expected


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("125m", (12, 768, 12)),
        ("350m", (24, 1024, 16)),
        ("760m", (24, 1536, 16)),
        ("2.7b", (32, 2560, 32)),
    ],
)
def test_presets_are_the_papers(name, sizes):
    config = Config.preset(name)
    assert (config.num_layers, config.embed_dim, config.num_heads) == sizes
    assert config.levels(0) == ((2048, 4096, 8192, 16384, 32768), (1, 2, 4, 6, 12))
    assert config.vocab_size == 50304
    assert Config.preset(name, vocab_size=64).vocab_size == 64
