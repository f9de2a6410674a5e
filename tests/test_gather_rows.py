"""The op gather_rows against its reference."""

import numpy as np
import pytest
import stepped_rows_cases
from ops import FLOATS, Call, check_contract, check_offsets, poison
from reference.gather_rows import gather_rows

import longnet

pytestmark = pytest.mark.usefixtures("device")
# (B, N, Hx, D), M, starts, step: within the sequence, beyond both ends, far away, grouped heads
CASES = [
    *stepped_rows_cases.CASES,
    ((1, 40, 2, 64), 90, [-30, -27], 1),
    ((3, 11, 1, 129), 9, [-7, 0, 5, 10, 11], 2),
    ((2, 50, 2, 8), 13, [-20, 3, 3, 49, 50, -100], 4),
    ((1, 7, 3, 1030), 4, [-2, 0, 3], 2),
    ((1, 23, 150, 2), 6, list(range(-150, 150)), 3),
    ((1, 23, 1, 2), 6, list(range(-150, 150)), 3),
]


def make(rng, shape=(2, 700, 3, 20), rows=300, starts=(-400, 0, 1, 7, 300, 699), step=3, **options):
    dtype = options.get("dtype", np.float32)
    x = rng.standard_normal(shape).astype(dtype)
    out = poison(shape[0] * len(starts), rows, shape[3], dtype=dtype)
    return Call("gather_rows", {"out": out}, {"x": x, "starts": starts, "step": step})


def make_lse(rng, shape=(2, 5, 4001), rows=2700, starts=(-400, 0, 1, 2001, 5000), step=3):
    x = rng.standard_normal(shape).astype(np.float32)
    x[rng.random(shape) < 0.1] = -np.inf
    out = poison(shape[0] * len(starts), rows)
    return Call("gather_rows", {"out": out}, {"x": x, "starts": starts, "step": step})


def assert_exact(call):
    (out,) = call()
    assert np.array_equal(out.astype(float), gather_rows(rows=out.shape[1], **call.inputs))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape", "rows", "starts", "step"), CASES)
def test_values(rng, shape, rows, starts, step, dtype):
    assert_exact(make(rng, shape, rows, starts, step, dtype=dtype))


@pytest.mark.parametrize(("shape", "rows", "starts", "step"), CASES)
def test_statistics(rng, shape, rows, starts, step):
    """An LSE is -inf where it has no row."""
    assert_exact(make_lse(rng, (shape[0], len(starts), shape[1]), rows, starts, step))


def test_all_bits(rng):
    """Also those of NaNs, and -0."""
    call = make(rng, (1, 50, 2, 16), 50, [0, 0], 1)
    call.inputs["x"] = rng.integers(0, 2**32, (1, 50, 2, 16), np.uint32).view(np.float32)
    expected = call.inputs["x"].view(np.uint32).transpose(0, 2, 1, 3).reshape(2, 50, 16)
    assert np.array_equal(call()[0].view(np.uint32), expected)


def test_bad_values(rng):
    stepped_rows_cases.check_bad_values(make(rng, (1, 9, 2, 4), 4, [0, 1], 1))


def test_bad_shapes(rng):
    call = make(rng, (1, 9, 2, 4), 4, [0, 1], 1)
    with pytest.raises(
        longnet.ShapeError, match="3 starts, expected a multiple of the 2 heads of x"
    ):
        call(starts=[0, 1, 2])
    with pytest.raises(longnet.ShapeError, match=r"out: shape \(2, 4, 4\), expected \(4, 4, 4\)"):
        call(starts=[0, 1, 2, 3])
    with pytest.raises(longnet.ShapeError, match=r"out: 2 dimensions, expected 3: \(B\*H, M, D\)"):
        call(out=poison(2, 4))
    with pytest.raises(longnet.ShapeError, match=r"x: 2 dimensions, expected 4: \(B, N, H, D\)"):
        call(x=np.zeros((9, 4), np.float32))
    with pytest.raises(longnet.DTypeError, match="out: dtype float16, expected float32"):
        call(out=poison(2, 4, 4, dtype=np.float16))


def test_bad_statistics(rng):
    call = make_lse(rng, (1, 2, 9), 4, [0, 1], 1)
    with pytest.raises(longnet.ShapeError, match="4 starts, expected one for each of the 2 heads"):
        call(starts=[0, 1, 2, 3])
    with pytest.raises(longnet.ShapeError, match=r"out: shape \(3, 4\), expected \(2, 4\)"):
        call(out=poison(3, 4))
    with pytest.raises(longnet.DTypeError, match="x: dtype float16, expected float32"):
        call(x=np.zeros((1, 2, 9), np.float16), out=poison(2, 4, dtype=np.float16))


def test_contract(rng):
    check_contract(make(rng))
    check_contract(make_lse(rng))


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_offset(rng, dtype):
    check_offsets(make(rng, (2, 30, 3, 24), 20, [-5, 0, 9], 2, dtype=dtype))
