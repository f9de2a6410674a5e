"""Learning-rate schedules against the formulas written out."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longnet.errors import ConfigError
from longnet.schedules import make_schedule

NAMES = ["polynomial", "cosine", "constant", "inverse_sqrt", "wsd"]


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_is_linear_and_reaches_the_full_rate(name):
    rate = make_schedule(name, learning_rate=6e-4, steps=1000, warmup_steps=75)
    for step in range(75):
        assert rate(step) == pytest.approx(6e-4 * (step + 1) / 75, rel=1e-15)
    assert rate(74) == 6e-4


def test_polynomial_is_the_papers_decay():
    rate = make_schedule(
        "polynomial",
        learning_rate=1.0,
        steps=110,
        warmup_steps=10,
        end_learning_rate=0.2,
        power=2.0,
    )
    for step in range(10, 110):
        assert rate(step) == pytest.approx(0.2 + 0.8 * (1 - (step - 10) / 100) ** 2, rel=1e-14)
    assert rate(110) == rate(10**12) == 0.2


def test_cosine():
    rate = make_schedule(
        "cosine", learning_rate=1.0, steps=110, warmup_steps=10, end_learning_rate=0.1
    )
    for step in range(10, 110):
        expected = 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 10) / 100))
        assert rate(step) == pytest.approx(expected, rel=1e-14)
    assert rate(60) == pytest.approx(0.55)
    assert rate(110) == rate(500) == 0.1


def test_constant():
    rate = make_schedule("constant", learning_rate=0.3, steps=10, end_learning_rate=0.1)
    assert {rate(step) for step in range(50)} == {0.3}


def test_inverse_sqrt():
    rate = make_schedule("inverse_sqrt", learning_rate=1.0, steps=1000, warmup_steps=100)
    assert rate(399) == pytest.approx(0.5)
    assert rate(1599) == pytest.approx(0.25)
    assert make_schedule("inverse_sqrt", learning_rate=1.0, steps=9)(0) == 1.0


def test_wsd_is_stable_then_decays():
    rate = make_schedule("wsd", learning_rate=1.0, steps=100, warmup_steps=10, decay_fraction=0.3)
    assert {rate(step) for step in range(10, 71)} == {1.0}
    for step in range(70, 100):
        assert rate(step) == pytest.approx(1 - (step - 70) / 30, rel=1e-14)
    assert rate(100) == 0.0


def test_wsd_decay_starts_after_the_warm_up():
    rate = make_schedule("wsd", learning_rate=1.0, steps=20, warmup_steps=10, decay_fraction=1.0)
    assert rate(9) == rate(10) == 1.0
    assert rate(15) == pytest.approx(0.5)


@settings(deadline=None)
@given(
    name=st.sampled_from(NAMES),
    steps=st.integers(1, 10**12),
    data=st.data(),
    full=st.floats(1e-8, 10),
    power=st.floats(0.1, 8),
    fraction=st.floats(1e-6, 1),
)
def test_every_rate_lies_between_the_end_and_the_full_one(name, steps, data, full, power, fraction):
    warmup = data.draw(st.integers(0, steps), label="warmup")
    end = full * data.draw(st.floats(0, 1), label="end")
    step = data.draw(st.integers(0, 2 * steps), label="step")
    rate = make_schedule(
        name,
        learning_rate=full,
        steps=steps,
        warmup_steps=warmup,
        end_learning_rate=end,
        power=power,
        decay_fraction=fraction,
    )
    slack = 1e-12 * full
    assert 0 <= rate(step) <= full + slack
    if step >= warmup:
        assert end - slack <= rate(step)
        assert rate(step + 1) <= rate(step) + slack


def test_unknown_name_lists_those_known():
    with pytest.raises(ConfigError, match=f"'linear', expected one of {', '.join(NAMES)}"):
        make_schedule("linear", learning_rate=1.0, steps=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate: found 0.0, expected a value above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: found nan, expected a value above 0"),
        ({"steps": 0}, "steps: found 0, expected at least 1"),
        ({"warmup_steps": 11}, "warmup_steps: found 11, expected 0 to steps = 10"),
        ({"warmup_steps": -1}, "warmup_steps: found -1, expected 0 to steps = 10"),
        ({"end_learning_rate": 2.0}, "end_learning_rate: found 2.0, expected 0 to learning_rate"),
        ({"power": 0.0}, "power: found 0.0, expected a value above 0"),
        ({"decay_fraction": 1.5}, "decay_fraction: found 1.5, expected a fraction"),
    ],
)
def test_numbers_outside_their_range(change, message):
    with pytest.raises(ConfigError, match=message):
        make_schedule("wsd", **{"learning_rate": 1.0, "steps": 10, **change})


def test_negative_step():
    rate = make_schedule("constant", learning_rate=1.0, steps=10)
    with pytest.raises(ConfigError, match="step: found -1, expected at least 0"):
        rate(-1)
