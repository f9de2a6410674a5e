"""The op normal against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, check_contract, check_offsets, poison
from reference.normal import normal

import longnet

pytestmark = pytest.mark.usefixtures("device")


def make(shape=(700, 131), dtype=np.float32, mean=0.5, std=2.0, seed=5):
    inputs = {"mean": mean, "std": std, "seed": seed}
    return Call("normal", {"out": poison(*shape, dtype=dtype)}, inputs)


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**64 - 1])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 7), (1024,), (1031,), (3, 33_333)])
def test_values(shape, dtype, seed):
    call = make(shape, dtype, seed=seed)
    assert_close(call()[0], normal(shape, **call.inputs), 2e-7)


def test_moments():
    """Of a million numbers the first four moments, each within 5 of its standard errors."""
    (z,) = make((1_000_000,), mean=0.0, std=1.0)()
    z = z.astype(float)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5e-3 * np.sqrt(spread)
    assert abs((z[::2] * z[1::2]).mean()) < 5e-3 * np.sqrt(2)
    assert 4.5 < np.abs(z).max() < 6


def test_a_longer_tensor_begins_alike():
    assert np.array_equal(make((100,))()[0], make((5000,))()[0][:100])


def test_bad_values():
    with pytest.raises(longnet.ConfigError, match="std is -1, expected 0 or more"):
        make()(std=-1.0)
    with pytest.raises(longnet.ConfigError, match="mean is nan, expected a finite number"):
        make()(mean=np.nan)


def test_contract():
    check_contract(make(), any_shape=("out",))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(dtype):
    check_offsets(make((700, 136), dtype))
