"""The op clip against its reference."""

import numpy as np
import pytest
from ops import Call, check_contract, check_offsets, poison
from reference.clip import clip

import longnet

pytestmark = pytest.mark.usefixtures("device")


def make(squares=50.0, max_norm=1.0, divisor=4.0):
    inputs = {"squares": np.array([squares], np.float32), "max_norm": max_norm, "divisor": divisor}
    return Call("clip", {"factor": poison(1), "norm": poison(1)}, inputs)


@pytest.mark.parametrize("divisor", [1.0, 3.0, 65536.0, 1e-3])
@pytest.mark.parametrize("max_norm", [1.0, 0.3, 1e6, np.inf])
@pytest.mark.parametrize("squares", [0.0, 1e-40, 0.01, 1.0, 123.4, 3e38])
def test_values(squares, max_norm, divisor):
    found = make(squares, max_norm, divisor)()
    exact = clip(float(np.float32(squares)), max_norm, divisor)
    np.testing.assert_allclose(np.concatenate(found), exact, rtol=2e-7)


def test_the_clipped_norm_is_the_largest():
    factor, norm = make(squares=50.0, max_norm=0.5, divisor=4.0)()
    assert norm[0] * 4.0 * factor[0] == pytest.approx(0.5)


@pytest.mark.parametrize("squares", [np.inf, np.nan, -1.0])
def test_a_norm_that_is_not_finite(squares):
    factor, norm = make(squares, max_norm=np.inf)()
    assert np.isnan(factor[0])
    assert not np.isfinite(norm[0])


BAD_VALUES = [
    ({"max_norm": 0.0}, "max_norm is 0, expected more than 0"),
    ({"max_norm": np.nan}, "max_norm is nan, expected more than 0"),
    ({"divisor": -1.0}, "divisor is -1, expected more than 0"),
    ({"divisor": np.inf}, "divisor is inf, expected a finite number"),
]


@pytest.mark.parametrize(("change", "message"), BAD_VALUES)
def test_bad_values(change, message):
    with pytest.raises(longnet.ConfigError, match=f"clip: {message}"):
        make()(**change)


def test_contract():
    check_contract(make())


def test_any_offset():
    check_offsets(make())
