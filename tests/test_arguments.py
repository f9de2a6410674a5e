"""Numbers that public functions take: NumPy's as well as Python's, and no others."""

import numpy as np
import pytest

import longnet
from longnet.arguments import integer, number
from longnet.config import Config
from longnet.data import ArraySource, Batches
from longnet.generate import generate
from longnet.model import LongNet
from longnet.random import RandomState

TINY = Config(num_layers=1, embed_dim=32, num_heads=2, segment_lengths=(8,), dilation_rates=(1,))


@pytest.mark.parametrize("value", [5, np.int64(5), np.uint8(5), np.array(5)])
def test_integers(value):
    assert integer("n", value) == 5
    assert type(integer("n", value)) is int


@pytest.mark.parametrize("value", [5, 5.0, np.float32(5), np.int8(5), np.array(5.0)])
def test_numbers(value):
    assert number("x", value) == 5.0
    assert type(number("x", value)) is float


@pytest.mark.parametrize("value", [1.0, "5", None, [5], np.zeros((3, 3))])
def test_what_is_no_integer_is_named_in_one_line(value):
    with pytest.raises(TypeError, match=r"^n: found .*, expected an integer$"):
        integer("n", value)


@pytest.mark.parametrize("value", ["5", None, [5], np.zeros((3, 3)), 1j])
def test_what_is_no_number_is_named_in_one_line(value):
    with pytest.raises(TypeError, match=r"^x: found .*, expected a number$"):
        number("x", value)


@pytest.mark.parametrize("kind", [int, np.int64, np.uint16])
def test_seeds_of_any_integer_type_are_the_same_seed(kind):
    weights = [
        LongNet(TINY, seed=seed).state_dict()["embedding.weight"] for seed in (3, kind(3), 4)
    ]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert RandomState(kind(3)).state_dict() == {"seed": 3, "drawn": 0, "shared": 0}
    assert type(RandomState(kind(3)).seed) is int
    source = ArraySource(np.arange(100))
    np.testing.assert_array_equal(
        next(Batches(source, kind(2), kind(5), seed=kind(3)))[0],
        next(Batches(source, 2, 5, seed=3))[0],
    )
    model = LongNet(TINY)
    np.testing.assert_array_equal(
        generate(model, [1], kind(3), seed=kind(3), top_k=kind(5)),
        generate(model, [1], 3, seed=3, top_k=5),
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LongNet(TINY, seed="x"), "seed: found 'x', expected an integer"),
        (lambda: RandomState(1.5), r"seed: found 1\.5, expected an integer"),
        (lambda: generate(LongNet(TINY), [1], 2.5), r"max_new_tokens: found 2\.5"),
        (lambda: generate(LongNet(TINY), [1], 2, seed=1.5), r"seed: found 1\.5"),
        (lambda: generate(LongNet(TINY), [1], 2, top_k="a"), "top_k: found 'a'"),
        (lambda: generate(LongNet(TINY), [1], 2, stop_token="a"), "stop_token: found 'a'"),
        (lambda: generate(LongNet(TINY), [1], 2, temperature="a"), "temperature: found 'a'"),
        (lambda: longnet.DilatedAttention([8], [1]).visible("a"), "N: found 'a'"),
        (lambda: longnet.DilatedAttention([8], [1]).pairs(8.5, 1), r"N: found 8\.5"),
    ],
)
def test_functions_name_the_argument(call, message):
    with pytest.raises(TypeError, match=message):
        call()
