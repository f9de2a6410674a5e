"""The op add_rows against its reference."""

import numpy as np
import pytest
import stepped_rows_cases
from ops import BFLOAT16, FLOATS, Call, assert_close, check_contract, check_offsets
from reference.add_rows import add_rows

import longnet

pytestmark = pytest.mark.usefixtures("device")
DTYPES = [
    *zip(FLOATS, FLOATS, strict=True),
    (np.float32, np.float16),
    (np.float32, BFLOAT16),
    (np.float16, np.float32),
    (BFLOAT16, np.float32),
]
# (B, N, Hx, D), M, starts, step; heads of a group meet in all rows, in some or in none
CASES = [
    *stepped_rows_cases.CASES,
    ((1, 40, 2, 64), 90, [-30, -27, 0, 2], 1),
    ((3, 11, 1, 129), 9, [-7, 0, 5, 10, 11], 2),
    ((2, 50, 2, 8), 13, [-20, 4, 4, 49, 45, -3], 4),
    ((1, 30, 2, 16), 5, [3, 3, 3, 3, 0, 1, 2, 3], 4),
    ((1, 7, 3, 1030), 4, [-2, 0, 3, 5, 2, 1], 2),
    ((1, 23, 150, 2), 6, list(range(-150, 150)), 3),
    ((1, 23, 75, 2), 6, list(range(-150, 150)), 3),
    ((1, 23, 2, 2), 6, list(range(-150, 150)), 3),
]
LARGE = (-400, 0, 1, 7, 300, 699)


def make(rng, shape=(2, 700, 3, 20), rows=300, starts=LARGE, step=3, dtypes=DTYPES[0]):
    x = rng.standard_normal(shape).astype(dtypes[0])
    part = rng.standard_normal((shape[0] * len(starts), rows, shape[3])).astype(dtypes[1])
    return Call("add_rows", {"x": x}, {"part": part, "starts": starts, "step": step})


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize(("shape", "rows", "starts", "step"), CASES)
def test_values(rng, shape, rows, starts, step, dtypes):
    call = make(rng, shape, rows, starts, step, dtypes)
    assert_close(call()[0], add_rows(**call.outputs, **call.inputs))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_rows_that_no_head_has(rng, dtypes):
    """They keep all their bits."""
    call = make(rng, (2, 60, 2, 24), 10, [-9, 1, 61, 6], 5, dtypes)
    x = call.outputs["x"]
    touched = add_rows(np.zeros_like(x), np.ones_like(call.inputs["part"]), [-9, 1, 61, 6], 5) != 0
    assert 0 < touched.sum() < touched.size
    x[~touched] = np.nan
    (found,) = call()
    assert np.isnan(found[~touched]).all()
    assert np.isfinite(found[touched].astype(float)).all()


@pytest.mark.parametrize("dtype", FLOATS[1:])
def test_one_rounding(rng, dtype):
    """Heads that meet are added up before the row is rounded."""
    call = make(rng, (1, 20, 1, 40), 20, [0] * 16, 1, (dtype, dtype))
    call.outputs["x"][:] = 256
    call.inputs["part"][:] = 1 / 16
    assert (call()[0] == 257 if dtype == np.float16 else call()[0] == 256).all()
    call.inputs["part"][:] = 1 / 4
    assert (call()[0] == 260).all()


def test_order_of_heads():
    """Heads of a group are added one after another."""
    x = np.full((1, 3, 1, 16), 1, np.float32)
    part = np.stack([np.full((3, 16), value, np.float32) for value in (2**30, -(2**30), 5)])
    (found,) = Call("add_rows", {"x": x}, {"part": part, "starts": [0, 0, 0], "step": 1})()
    assert (found == 5).all()


@pytest.mark.parametrize("group", [1, 2, 5])
def test_adjoint_of_gather_rows(rng, group):
    """<gather(x), y> = <x, add(0, y)>."""
    starts = rng.integers(-30, 60, 3 * group).tolist()
    call = make(rng, (2, 50, 3, 16), 20, starts, 2)
    x, y = call.outputs["x"], call.inputs["part"]
    call(x=(added := np.zeros_like(x)))
    gather = Call("gather_rows", {"out": np.zeros_like(y)}, {"x": x, "starts": starts, "step": 2})
    left = (gather()[0].astype(float) * y).sum()
    assert abs(left - (x.astype(float) * added).sum()) < 1e-5 * np.abs(x).sum()


def test_bad_values(rng):
    stepped_rows_cases.check_bad_values(make(rng, (1, 9, 2, 4), 4, [0, 1], 1))


def test_bad_arrays(rng):
    call = make(rng, (1, 9, 2, 4), 4, [0, 1], 1)
    with pytest.raises(
        longnet.ShapeError, match="3 starts, expected a multiple of the 2 heads of x"
    ):
        call(starts=[0, 1, 2])
    with pytest.raises(longnet.ShapeError, match=r"part: shape \(3, 4, 4\), expected \(2, 4, 4\)"):
        call(part=np.zeros((3, 4, 4), np.float32))
    with pytest.raises(longnet.ShapeError, match="part: 2 dimensions, expected 3"):
        call(part=np.zeros((2, 4), np.float32))
    with pytest.raises(longnet.ShapeError, match="x: 3 dimensions, expected 4"):
        call(x=np.zeros((1, 9, 4), np.float32))
    with pytest.raises(longnet.DTypeError, match="x: dtype float16, expected"):
        call(x=np.zeros((1, 9, 2, 4), np.float16), part=np.zeros((2, 4, 4), BFLOAT16))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_contract(rng, dtypes):
    check_contract(make(rng, dtypes=dtypes))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_any_offset(rng, dtypes):
    check_offsets(make(rng, (2, 30, 3, 24), 20, [-5, 0, 9, 4, 2, 2], 2, dtypes))
