"""Operations of training, counted by hand."""

import pytest

from longnet import Config
from longnet.flops import flops_per_token, peak_flops
from longnet.model import LongNet

SMALL = {
    "vocab_size": 50,
    "num_layers": 2,
    "embed_dim": 32,
    "num_heads": 2,
    "segment_lengths": (8,),
    "dilation_rates": (1,),
}
LAYER = 4 * 32 * 32 + 2 * 32 * 128


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, 2 * LAYER + 50 * 32),
        ({"tie_embeddings": True}, 2 * LAYER + 50 * 32),
        ({"num_kv_heads": 1}, 2 * (LAYER - 2 * 32 * 16) + 50 * 32),
        ({"activation": "swiglu", "ffn_dim": 64}, 2 * (4 * 32 * 32 + 3 * 32 * 64) + 50 * 32),
    ],
)
def test_against_a_count_by_hand(changes, weights):
    model = LongNet(Config(**SMALL, **changes))
    pairs = 2 * 2 * (8 * 9 // 2) * 2  # layers, heads, of a segment, segments
    assert flops_per_token(model, 16) == 6 * weights + 14 * 16 * pairs / 16


def test_dense_attention_sees_the_whole_sequence():
    model = LongNet(Config(**SMALL, mixer="dense"))
    assert (
        flops_per_token(model, 16) == 6 * (2 * LAYER + 50 * 32) + 14 * 16 * 4 * (16 * 17 // 2) / 16
    )


def test_the_peak_of_a_processor_is_not_known():
    assert peak_flops("cpu", "bfloat16") is None
    assert peak_flops("cuda", "float32") is None
