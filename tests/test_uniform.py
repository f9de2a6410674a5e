"""The op uniform against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.uniform import uniform

import longnet

pytestmark = pytest.mark.usefixtures("device")
SEEDS = [0, 1, 2**32 + 5, 2**64 - 1]


def make(shape=(700, 131), dtype=np.float32, low=-1.0, high=3.0, seed=5):
    inputs = {"low": low, "high": high, "seed": seed}
    return Call("uniform", {"out": poison(*shape, dtype=dtype)}, inputs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 7), (1024,), (3, 33_333)])
def test_values(shape, dtype, seed):
    call = make(shape, dtype, seed=seed)
    assert_close(call()[0], uniform(shape, **call.inputs), 1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_numbers_exactly(seed):
    """In [0, 1) float32 holds them as they are: the random words are the reference's."""
    (out,) = make((100_003,), low=0.0, high=1.0, seed=seed)()
    assert np.array_equal(out, uniform((100_003,), 0, 1, seed))
    assert out.min() >= 0
    assert out.max() < 1


def test_bad_values():
    with pytest.raises(longnet.ConfigError, match="low is 2 and high is 1, expected low <= high"):
        make()(low=2.0, high=1.0)
    with pytest.raises(longnet.ConfigError, match="high is inf, expected a finite number"):
        make()(high=np.inf)


def test_contract():
    check_contract(make(), any_shape=("out",))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(dtype):
    check_offsets(make((700, 136), dtype))
