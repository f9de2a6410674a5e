"""The op cast against its reference: the same bits."""

import numpy as np
import pytest
from ops import FLOATS, Call, check_contract, check_offsets, poison
from reference.cast import cast

pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning"),
]


def make(rng, shape=(700, 131), dtype=np.float32, target=np.float16):
    x = np.asarray(rng.standard_normal(shape) * np.exp2(rng.integers(-30, 30, shape)), dtype)
    return Call("cast", {"out": poison(*shape, dtype=target)}, {"x": x})


def same(computed, exact):
    return np.array_equal(computed.astype(float), exact.astype(float), equal_nan=True)


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 7), (1024,), (3, 33_333)])
def test_values(rng, shape, dtype, target):
    call = make(rng, shape, dtype, target)
    assert same(call()[0], cast(call.inputs["x"], target))


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS[1:])
def test_every_half(dtype, target):
    x = np.arange(65_536, dtype=np.uint16).view(dtype)
    assert same(Call("cast", {"out": poison(65_536, dtype=target)}, {"x": x})()[0], cast(x, target))


@pytest.mark.parametrize("target", FLOATS[1:])
def test_halves_and_their_middles(target):
    """Exactly between two neighbours, and one step to either side of that."""
    halves = np.arange(65_536, dtype=np.uint16).view(target).astype(np.float32)
    middles = (halves[:-1] / 2 + halves[1:] / 2)[np.isfinite(halves[:-1])]
    x = np.concatenate([middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)])
    x = x.astype(np.float32)
    assert same(Call("cast", {"out": poison(x.size, dtype=target)}, {"x": x})()[0], cast(x, target))


def test_contract(rng):
    check_contract(make(rng, target=np.float32))


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype, target):
    call = make(rng, (700, 136), dtype, target)
    call.inputs["x"] = rng.standard_normal((700, 136)).astype(dtype)
    check_offsets(call)
