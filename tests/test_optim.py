"""AdamW and the norm of all gradients."""

import math

import numpy as np
import pytest
from reference.adamw import adamw

import longnet
from longnet import Tensor, nn
from longnet._core import ops
from longnet.optim import AdamW, clip_factor


def parameter(name, array):
    p = nn.Parameter(array.shape)
    p.name = name
    p.data.numpy()[...] = array
    return p


def give(p, gradient):
    p.grad = Tensor(np.array(gradient, np.float32))


def test_steps_against_float64(rng):
    arrays = {"a": rng.standard_normal((5, 7)), "b": rng.standard_normal(9)}
    parameters = [parameter(name, array) for name, array in arrays.items()]
    optimizer = AdamW(parameters, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    state = {p.name: (p.data.numpy().copy(), np.zeros(1), np.zeros(1)) for p in parameters}
    for step in range(1, 6):
        for p in parameters:
            give(p, rng.standard_normal(p.shape))
            decay = 0.1 if p.name == "a" else 0.0  # vectors have no decay
            options = (0.01 * step, 0.8, 0.95, 1e-6, decay, step, 0.5)
            state[p.name] = adamw(*state[p.name], p.grad.numpy(), *options)
        optimizer.step(0.01 * step, Tensor(np.array([0.5], np.float32)))
    for p in parameters:
        np.testing.assert_allclose(p.data.numpy(), state[p.name][0], rtol=2e-6, atol=2e-7)


def test_a_parameter_without_gradient_stays(rng):
    a, b = (parameter(name, rng.standard_normal((3, 3))) for name in "ab")
    before = b.data.numpy().copy()
    optimizer = AdamW([a, b])
    give(a, np.ones((3, 3)))
    optimizer.step(0.1)
    np.testing.assert_array_equal(b.data.numpy(), before)
    optimizer.zero_grad()
    assert a.grad is None


def test_clip_factor(rng):
    parameters = [parameter(str(i), np.zeros((3, 50 * i + 1))) for i in range(4)]
    with pytest.raises(longnet.ConfigError, match="found no gradient"):
        clip_factor(parameters, 1.0)
    gradients = [rng.standard_normal(p.shape) for p in parameters[:3]]
    for p, g in zip(parameters, gradients, strict=False):
        give(p, g)
    expected = math.sqrt(sum((g**2).sum() for g in gradients)) / 4
    factor, norm = clip_factor(iter(parameters), expected / 3, divisor=4)
    assert norm.item() == pytest.approx(expected, rel=1e-6)
    assert factor.item() == pytest.approx(1 / 3 / 4, rel=1e-6)
    factor, _ = clip_factor(parameters, expected * 2, divisor=4)
    assert factor.item() == 1 / 4
    for value in (np.inf, np.nan):
        parameters[1].grad.numpy()[0, 0] = value
        factor, norm = clip_factor(parameters, 1.0)
        assert math.isnan(factor.item())
        np.testing.assert_equal(norm.item(), value)


def test_gradients_that_are_not_finite_change_nothing(rng):
    p = parameter("a", rng.standard_normal((5, 7)))
    optimizer = AdamW([p])
    steps(optimizer, [p], 0, 2)
    before = [p.data.numpy().copy(), *(a.copy() for a in list(optimizer.state_dict().values())[:2])]
    give(p, np.full((5, 7), np.inf))
    optimizer.step(0.1, clip_factor([p], 1.0)[0])
    after = [p.data.numpy(), *list(optimizer.state_dict().values())[:2]]
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("stochastic", [False, True])
def test_rounded_weights(rng, stochastic):
    p = parameter("a", rng.standard_normal((50, 70)))
    options = {"dtype": "bfloat16", "stochastic_rounding": stochastic, "seed": 3}
    optimizer = AdamW([p], **options)
    steps(optimizer, [p], 0, 2)
    rounded, weight = (x.numpy().astype(np.float64) for x in (p.rounded, p.data))
    assert np.abs(rounded / weight - 1).max() < (2**-7 if stochastic else 2**-8)
    assert (rounded == p.data.numpy().astype(p.rounded.numpy().dtype)).all() != stochastic
    q = parameter("a", p.data.numpy())
    other = AdamW([q], **options)
    other.load_state_dict(optimizer.state_dict())
    np.testing.assert_array_equal(q.rounded.numpy(), p.rounded.numpy())


@pytest.mark.parametrize("first", [False, True])
def test_rounded_weights_of_another_way_of_rounding(rng, first):
    """Those of a state without them, or for nobody, are made anew."""
    p = parameter("a", rng.standard_normal((50, 70)))
    optimizer = AdamW([p], dtype="bfloat16", stochastic_rounding=first)
    steps(optimizer, [p], 0, 2)
    q = parameter("a", p.data.numpy())
    other = AdamW([q], dtype="bfloat16", stochastic_rounding=not first)
    ops.fill(q.rounded, 0.0)
    other.load_state_dict(optimizer.state_dict())
    nearest = q.data.numpy().astype(q.rounded.numpy().dtype)
    np.testing.assert_array_equal(q.rounded.numpy(), nearest)


def steps(optimizer, parameters, seed, count):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        for p in parameters:
            give(p, rng.standard_normal(p.shape))
        optimizer.step(0.01)


def test_a_resumed_run_gives_the_same_bits(rng):
    arrays = {"a": rng.standard_normal((5, 7)), "b": rng.standard_normal(9)}
    unbroken = [parameter(name, array) for name, array in arrays.items()]
    optimizer = AdamW(unbroken)
    steps(optimizer, unbroken, 0, 3)
    saved = {k: v if isinstance(v, int) else v.copy() for k, v in optimizer.state_dict().items()}
    assert list(saved) == ["a.m", "a.v", "b.m", "b.v", "steps"]
    resumed = [parameter(p.name, p.data.numpy()) for p in unbroken]
    other = AdamW(resumed)
    other.load_state_dict(saved)
    steps(optimizer, unbroken, 1, 3)
    steps(other, resumed, 1, 3)
    assert other.steps == optimizer.steps == 6
    for p, q in zip(unbroken, resumed, strict=True):
        np.testing.assert_array_equal(p.data.numpy(), q.data.numpy())


def test_state_dict_is_the_optimizer_s_own_memory(rng):
    p = parameter("a", rng.standard_normal((2, 2)))
    optimizer = AdamW([p])
    state = optimizer.state_dict()
    steps(optimizer, [p], 0, 1)
    assert state["a.m"].any()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a.v", None, r"found no a\.v"),
        ("steps", None, "found no steps"),
        ("c.m", np.zeros(1, np.float32), r"found c\.m, expected no array"),
        (
            "a.m",
            np.zeros((2, 3), np.float32),
            r"a\.m: found float32 \(2, 3\), expected .* \(2, 2\)",
        ),
        ("a.m", np.zeros((2, 2)), r"a\.m: found float64"),
        ("a.m", 3, r"a\.m: found 3, expected an array"),
        ("a.m", np.full((2, 2), np.inf, np.float32), r"a\.m: found NaN or infinity"),
        ("a.v", np.full((2, 2), -1, np.float32), r"a\.v: found -1\.0, expected at least 0"),
        ("steps", -1, "steps: found -1"),
        ("steps", 0.5, r"steps: found 0\.5"),
    ],
)
def test_a_wrong_state_is_named_and_changes_nothing(rng, key, value, message):
    p = parameter("a", rng.standard_normal((2, 2)))
    optimizer = AdamW([p])
    steps(optimizer, [p], 0, 2)
    before = optimizer.state_dict()["a.m"].copy()
    state = {"a.m": before + 1, "a.v": before**2, "steps": 7} | {key: value}
    if value is None:
        del state[key]
    with pytest.raises(longnet.CheckpointError, match=message):
        optimizer.load_state_dict(state)
    np.testing.assert_array_equal(optimizer.state_dict()["a.m"], before)
    assert optimizer.steps == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (0.9, 1.0)}, r"betas: found \(0\.9, 1\.0\)"),
        ({"eps": 0.0}, r"eps: found 0\.0"),
        ({"weight_decay": -1.0}, r"weight_decay: found -1\.0"),
        ({"weight_decay": math.nan}, "weight_decay: found nan"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(longnet.ConfigError, match=message):
        AdamW([parameter("a", np.zeros(2))], **options)


def test_two_parameters_of_one_name():
    with pytest.raises(longnet.ConfigError, match="found the name 'a' twice"):
        AdamW([parameter("a", np.zeros(2)), parameter("a", np.zeros(2))])
