"""The op adamw against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.adamw import adamw
from reference.philox import philox
from reference.rounding import stochastic
from reference.uniform import words

import longnet

pytestmark = pytest.mark.usefixtures("device")
HALVES = FLOATS[1:]


def make(rng, shape=(700, 131), dtype=np.float32, rounded=None, **options):
    weight, m, grad = rng.standard_normal((3, *shape)).astype(np.float32)
    v = rng.random(shape, dtype=np.float32)
    settings = {
        **{"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "weight_decay": 0.01},
        **{"step": 7, "stochastic": False, "seed": 2**40 + 3, **options},
    }
    outputs = {"weight": weight, "m": m, "v": v}
    if rounded is not None:
        outputs["rounded"] = poison(*shape, dtype=rounded)
    return Call("adamw", outputs, {"grad": grad.astype(dtype), **settings})


def exact(call):
    """The reference's weight, m and v."""
    arguments = {**call.outputs, **call.inputs}
    for name in ("rounded", "stochastic", "seed", "first"):
        arguments.pop(name, None)
    return adamw(**arguments)


def still(rng, weight, dtype, **options):
    """A step that leaves the weight as it is and rounds it stochastically."""
    options = {"learning_rate": 0.0, "stochastic": True, **options}
    call = make(rng, weight.shape, rounded=dtype, **options)
    call.outputs["weight"] = weight
    return call


@pytest.mark.parametrize("step", [1, 2, 1000, 10**12])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 341)])
def test_values(rng, shape, step):
    call = make(rng, shape, step=step)
    for computed, y in zip(call(), exact(call), strict=True):
        assert_close(computed, y, 2e-7)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(1,), (3, 341), (40, 136)])
def test_half_gradients(rng, shape, dtype):
    call = make(rng, shape, dtype)
    for computed, y in zip(call(), exact(call), strict=True):
        assert_close(computed, y, 2e-7)


@pytest.mark.parametrize("dtype", HALVES)
def test_rounded_to_nearest(rng, dtype):
    call = make(rng, (3, 341), rounded=dtype)
    *state, rounded = call()
    assert np.array_equal(rounded, state[0].astype(dtype))
    call.outputs.pop("rounded")
    assert all(np.array_equal(a, b) for a, b in zip(state, call(), strict=True))


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(1,), (3, 341), (40, 136)])
def test_rounded_stochastically(rng, shape, dtype, seed):
    weight, _, _, rounded = make(rng, shape, rounded=dtype, stochastic=True, seed=seed)()
    random = words(weight.size, seed).reshape(shape)
    assert np.array_equal(rounded, stochastic(weight, random, dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_at_any_size(rng, dtype):
    """Subnormal numbers, those beyond the largest, and what is no number."""
    weight = rng.standard_normal(40_001) * np.exp2(rng.integers(-160, 127, 40_001))
    weight[:20_000] = rng.standard_normal(20_000) * np.exp2(rng.integers(-30, 18, 20_000))
    weight = np.concatenate([weight, [0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)
    call = still(rng, weight, dtype)
    kept, _, _, rounded = call()
    assert np.array_equal(kept, weight, equal_nan=True)
    expected = stochastic(kept, words(kept.size, call.inputs["seed"]), dtype)
    assert np.array_equal(rounded.astype(float), expected.astype(float), equal_nan=True)
    signs = np.signbit(rounded) == np.signbit(expected)
    assert signs[~np.isnan(kept)].all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("count", [1, 5, 64, 4001])
@pytest.mark.parametrize("first", [4, 60, 2048])
def test_a_part_has_the_bits_it_has_in_the_whole(rng, dtype, count, first):
    call = make(rng, (7001,), rounded=dtype, stochastic=True)
    part = slice(first, first + count)
    expected = [output[part] for output in call()]
    call.outputs = {name: array[part] for name, array in call.outputs.items()}
    found = call(grad=call.inputs["grad"][part], first=first)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_first_element_of_a_large_tensor(rng):
    call = make(rng, (100,), rounded=HALVES[1], stochastic=True, first=2**40)
    weight, _, _, rounded = call()
    random = philox(call.inputs["seed"], 2**38 + np.arange(25), 0).reshape(-1)
    assert np.array_equal(rounded, stochastic(weight, random, HALVES[1]))


@pytest.mark.parametrize("value", [1 + 2**-12, -0.3, 3e-6])
@pytest.mark.parametrize("dtype", HALVES)
def test_right_in_the_mean(rng, dtype, value):
    weight = np.full(100_000, value, np.float32)
    rounded = still(rng, weight, dtype)()[3].astype(float)
    steps = np.unique(rounded)
    assert steps.size == 2
    assert abs(rounded.mean() - weight[0]) < 5 * (steps[1] - steps[0]) / 2 / np.sqrt(weight.size)


def test_factor(rng):
    call = make(rng, factor=np.array([0.3], np.float32))
    for computed, y in zip(call(), exact(call), strict=True):
        assert_close(computed, y, 2e-7)
    without = make(rng)
    quarter = without(grad=without.inputs["grad"] / 4)
    found = without(factor=np.array([0.25], np.float32))
    assert all(np.array_equal(a, b) for a, b in zip(found, quarter, strict=True))


@pytest.mark.parametrize("factor", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rounded", [None, *HALVES])
def test_a_factor_that_is_not_finite_changes_nothing(rng, rounded, factor):
    call = make(rng, rounded=rounded, factor=np.array([factor], np.float32))
    if rounded is not None:
        call.outputs["rounded"] = call.outputs["weight"].astype(rounded)
    for found, before in zip(call(), call.outputs.values(), strict=True):
        assert np.array_equal(found, before)


def test_first_step_is_the_learning_rate(rng):
    call = make(rng, step=1, weight_decay=0.0, learning_rate=0.125, eps=0.0)
    for name in ("weight", "m", "v"):
        call.outputs[name][:] = 0
    weight = call()[0]
    assert_close(weight, -0.125 * np.sign(call.inputs["grad"]), 5e-7)


def test_many_steps(rng):
    """Errors do not build up over a run: v remembers 50 steps of three roundings each."""
    call = make(rng, (50,))
    state = tuple(call.outputs.values())
    for step in range(1, 201):
        grad = rng.standard_normal(50).astype(np.float32)
        call.inputs |= {"grad": grad, "step": step}
        options = {k: v for k, v in call.inputs.items() if k not in ("stochastic", "seed")}
        state = adamw(*state, **options)
        call.outputs = dict(zip(("weight", "m", "v"), call(), strict=True))
    for computed, y in zip(call.outputs.values(), state, strict=True):
        assert_close(computed, y, 50 * 3 * 2**-24)


def test_without_a_gradient_only_the_decay_acts(rng):
    call = make(rng, eps=0.0, factor=np.zeros(1, np.float32), beta1=0.0)
    assert_close(call()[0], call.outputs["weight"] * (1 - 1e-5), 2e-7)


BAD_VALUES = [
    ({"step": 0}, "step is 0, expected 1 or more"),
    ({"beta1": 1.0}, "beta1 is 1, expected 0 <= beta1 < 1"),
    ({"beta2": -0.1}, "beta2 is -0.1, expected 0 <= beta2 < 1"),
    ({"eps": -1.0}, "eps is -1, expected 0 or more"),
    ({"learning_rate": np.inf}, "learning_rate is inf, expected a finite number"),
    ({"weight_decay": np.nan}, "weight_decay is nan, expected a finite number"),
    ({"stochastic": True}, "stochastic without rounded, expected both"),
    ({"first": -4}, "first is -4, expected a multiple of 4, 0 or more"),
    ({"first": 6}, "first is 6, expected a multiple of 4, 0 or more"),
]


@pytest.mark.parametrize(("change", "message"), BAD_VALUES)
def test_bad_values(rng, change, message):
    with pytest.raises(longnet.ConfigError, match=f"adamw: {message}"):
        make(rng)(**change)


def everything(rng, shape=(700, 131), dtype=np.float32, rounded=HALVES[1]):
    factor = np.array([0.7], np.float32)
    return make(rng, shape, dtype, rounded, factor=factor, stochastic=True)


def test_contract(rng):
    check_contract(make(rng))
    check_contract(everything(rng))


@pytest.mark.parametrize("rounded", HALVES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype, rounded):
    check_offsets(everything(rng, (700, 136), dtype, rounded))
