"""The op adamw against its reference."""

import numpy as np
import pytest
from ops import Call, assert_close, check_contract
from reference.adamw import adamw

import longnet


def make(rng, shape=(700, 131), **options):
    weight, m, grad = rng.standard_normal((3, *shape)).astype(np.float32)
    v = rng.random(shape, dtype=np.float32)
    settings = {
        **{"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8},
        **{"weight_decay": 0.01, "step": 7, "grad_scale": 0.5, **options},
    }
    return Call("adamw", {"weight": weight, "m": m, "v": v}, {"grad": grad, **settings})


@pytest.mark.parametrize("step", [1, 2, 1000, 10**12])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 341)])
def test_values(rng, shape, step):
    call = make(rng, shape, step=step)
    for computed, exact in zip(call(), adamw(**call.outputs, **call.inputs), strict=True):
        assert_close(computed, exact, 2e-7)


def test_first_step_is_the_learning_rate(rng):
    call = make(rng, step=1, weight_decay=0.0, learning_rate=0.125, eps=0.0)
    for name in ("weight", "m", "v"):
        call.outputs[name][:] = 0
    weight = call()[0]
    assert_close(weight, -0.125 * np.sign(call.inputs["grad"]), 5e-7)


def test_many_steps(rng):
    """Errors do not build up over a run: v remembers 50 steps of three roundings each."""
    call = make(rng, (50,))
    exact = tuple(call.outputs.values())
    for step in range(1, 201):
        grad = rng.standard_normal(50).astype(np.float32)
        call.inputs |= {"grad": grad, "step": step}
        exact = adamw(*exact, **call.inputs)
        call.outputs = dict(zip(("weight", "m", "v"), call(), strict=True))
    for computed, y in zip(call.outputs.values(), exact, strict=True):
        assert_close(computed, y, 50 * 3 * 2**-24)


def test_without_a_gradient_only_the_decay_acts(rng):
    call = make(rng, eps=0.0, grad_scale=0.0, beta1=0.0)
    assert_close(call()[0], call.outputs["weight"] * (1 - 1e-5), 2e-7)


BAD_VALUES = [
    ({"step": 0}, "step is 0, expected 1 or more"),
    ({"beta1": 1.0}, "beta1 is 1, expected 0 <= beta1 < 1"),
    ({"beta2": -0.1}, "beta2 is -0.1, expected 0 <= beta2 < 1"),
    ({"eps": -1.0}, "eps is -1, expected 0 or more"),
    ({"learning_rate": np.inf}, "learning_rate is inf, expected a finite number"),
    ({"weight_decay": np.nan}, "weight_decay is nan, expected a finite number"),
    ({"grad_scale": np.nan}, "grad_scale is nan, expected a finite number"),
]


@pytest.mark.parametrize(("change", "message"), BAD_VALUES)
def test_bad_values(rng, change, message):
    with pytest.raises(longnet.ConfigError, match=f"adamw: {message}"):
        make(rng)(**change)


def test_contract(rng):
    check_contract(make(rng))
