"""Modules: names, order, weights in and out, first values."""

import math

import ml_dtypes
import numpy as np
import pytest
from gradients import variable

import longnet
from longnet import Config, nn, random


class Pair(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter((2,), mean=1.0)
        self.rest = [nn.RMSNorm(4), nn.LayerNorm(4)]
        self.again = self.first
        self.nothing = None

    def forward(self, x):
        return self.rest[1](self.rest[0](self.first(x)))


@pytest.fixture
def pair():
    module = Pair()
    nn.initialise(module.named_parameters(), 0)
    return module


NAMES = [
    "first.weight",
    "first.bias",
    "scale",
    "rest.0.weight",
    "rest.1.weight",
    "rest.1.bias",
]


def test_names_come_in_order_and_once(pair):
    assert [name for name, _ in pair.named_parameters()] == NAMES
    assert [p.name for p in pair.parameters()] == NAMES
    assert pair.num_parameters() == 12 + 4 + 2 + 4 + 4 + 4


def test_first_values_do_not_depend_on_order_or_neighbours(pair):
    alone = nn.Linear(3, 4)
    nn.initialise([("first.weight", alone.weight)], 0)
    np.testing.assert_array_equal(alone.weight.data.numpy(), pair.first.weight.data.numpy())
    nn.initialise(pair.named_parameters(), 1)
    assert not np.array_equal(alone.weight.data.numpy(), pair.first.weight.data.numpy())
    assert not pair.first.bias.data.numpy().any()
    assert (pair.scale.data.numpy() == 1).all()


def test_xavier(rng):
    layer = nn.Linear(300, 500, gain=2.0)
    nn.initialise(layer.named_parameters(), 3)
    values = layer.weight.data.numpy()
    std = 2.0 * math.sqrt(2 / 800)
    assert values.std() == pytest.approx(std, rel=0.02)
    assert abs(values.mean()) < 5 * std / math.sqrt(values.size)


def test_forward_reaches_every_parameter(pair, rng):
    x = variable(rng.standard_normal((5, 3)))
    out = pair(x)
    assert out.shape == (5, 4)
    out.backward(longnet.Tensor(np.ones((5, 4), np.float32)))
    assert [p.grad is not None for p in pair.parameters()] == [name != "scale" for name in NAMES]
    pair.zero_grad()
    assert all(p.grad is None for p in pair.parameters())


def test_state_dict_is_the_parameters_own_memory(pair):
    state = pair.state_dict()
    assert list(state) == NAMES
    state["scale"][:] = 5
    assert (pair.scale.data.numpy() == 5).all()


def test_load_state_dict(pair, rng):
    other = Pair()
    other.load_state_dict(pair.state_dict())
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, pair.state_dict()[name])
        assert not np.shares_memory(array, pair.state_dict()[name])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_load_from_half_precision(pair, dtype):
    state = {name: array.astype(dtype) for name, array in pair.state_dict().items()}
    pair.load_state_dict(state)
    for name, array in pair.state_dict().items():
        np.testing.assert_array_equal(array, state[name].astype(np.float32))


def without(name):
    return lambda state: state.pop(name)


def put(name, value):
    return lambda state: state.__setitem__(name, value)


def spoil(name, index, value):
    def change(state):
        state[name] = state[name].copy()
        state[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("rest.0.weight"), r"rest\.0\.weight: not found, expected \(4,\)"),
        (put("rest.2.weight", np.zeros(4, np.float32)), r"rest\.2\.weight: found"),
        (
            put("first.weight", np.zeros((3, 4), np.float32)),
            r"first\.weight: found shape \(3, 4\), expected \(4, 3\)",
        ),
        (put("scale", np.zeros(2)), "scale: found float64, expected float32"),
        (spoil("first.weight", (2, 1), np.nan), r"first\.weight\[2, 1\]: found nan"),
        (spoil("rest.1.bias", 3, -np.inf), r"rest\.1\.bias\[3\]: found -inf"),
    ],
)
def test_load_names_what_is_wrong_and_changes_nothing(pair, change, message):
    before = {name: array.copy() for name, array in pair.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    change(state)
    with pytest.raises(longnet.CheckpointError, match=message) as caught:
        pair.load_state_dict(state)
    assert "\n" not in str(caught.value)
    for name, array in pair.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_train_and_eval_reach_all_modules(pair):
    pair.eval()
    assert not any(m.training for m in (pair, pair.first, *pair.rest))
    pair.train()
    assert all(m.training for m in (pair, pair.first, *pair.rest))


def test_dropout_follows_the_mode_and_the_seeds(rng):
    x, layer = variable(rng.standard_normal((20, 20))), nn.Dropout(0.5)
    results = []
    for seed in (1, 1, 2):
        with random.use(random.RandomState(seed)):
            results.append(layer(x).data.numpy())
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert layer.eval()(x) is x


def test_embedding_layer(rng):
    layer = nn.Embedding(50, 64, scale=8.0)
    nn.initialise(layer.named_parameters(), 0)
    out = layer(rng.integers(0, 50, (4, 30)).astype(np.int32)).data.numpy()
    assert out.shape == (4, 30, 64)
    assert out.std() == pytest.approx(1.0, rel=0.1)


def test_half_precision_keeps_float32_parameters(pair, rng):
    x = longnet.functional.cast(variable(rng.standard_normal((5, 3))), "bfloat16")
    out = pair(x)
    assert out.dtype == "bfloat16"
    out.backward(longnet.Tensor(np.ones((5, 4), ml_dtypes.bfloat16)))
    assert {p.grad.dtype for p in pair.parameters() if p.grad is not None} == {"float32"}


def test_unknown_norm():
    with pytest.raises(longnet.ConfigError, match="found 'batch_norm', expected layer_norm or rms"):
        nn.make_norm("batch_norm", 4, 1e-5)


@pytest.mark.parametrize(
    ("placement", "inner", "outer"),
    [("sub", math.sqrt(math.log(24)), math.sqrt(math.log(24))), ("pre", 1.0, 24**-0.5)],
)
def test_residual_gains(placement, inner, outer):
    config = Config(norm_placement=placement, num_layers=12)
    assert nn.residual_gains(config) == pytest.approx((inner, outer))
