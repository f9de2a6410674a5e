"""The op merge_rows against its reference."""

import numpy as np
import pytest
import stepped_rows_cases
from ops import BFLOAT16, FLOATS, Call, assert_close, check_contract, check_offsets
from reference.merge_rows import merge_rows

import longnet

pytestmark = pytest.mark.usefixtures("device")
DTYPES = [*zip(FLOATS, FLOATS, strict=True), (np.float32, np.float16), (np.float32, BFLOAT16)]
# (B, N, H, D), M, starts, step
CASES = [
    *stepped_rows_cases.CASES,
    ((1, 40, 2, 64), 90, [-30, -27], 1),
    ((3, 11, 5, 129), 9, [-7, 0, 5, 10, 11], 2),
    ((2, 50, 6, 8), 13, [-20, 3, 3, 49, 50, -100], 4),
    ((1, 7, 3, 1030), 4, [-2, 0, 3], 2),
    ((1, 23, 300, 2), 6, list(range(-150, 150)), 3),
]
LARGE = (-400, 0, 1, 7, 300, 699)


def make(rng, shape=(2, 700, 6, 20), rows=300, starts=LARGE, step=3, dtypes=DTYPES[0]):
    batch, length, heads, width = shape
    out = rng.standard_normal(shape).astype(dtypes[0])
    lse = (rng.standard_normal((batch, heads, length)) * 5).astype(np.float32)
    part = rng.standard_normal((batch * heads, rows, width)).astype(dtypes[1])
    part_lse = (rng.standard_normal((batch * heads, rows)) * 5).astype(np.float32)
    inputs = {"part": part, "part_lse": part_lse, "starts": starts, "step": step}
    return Call("merge_rows", {"out": out, "lse": lse}, inputs)


def make_with_gaps(rng, *args, **options):
    """Some rows have no keys on one side or on both; nobody is to look at what lies there."""
    call = make(rng, *args, **options)
    out, lse = call.outputs["out"], call.outputs["lse"]
    part, part_lse = call.inputs["part"], call.inputs["part_lse"]
    lse[rng.random(lse.shape) < 0.4] = -np.inf
    part_lse[rng.random(part_lse.shape) < 0.4] = -np.inf
    out[np.isneginf(lse).transpose(0, 2, 1)] = 0
    part[np.isneginf(part_lse)] = np.nan
    return call


def assert_reference(call):
    out, lse = call()
    exact_out, exact_lse = merge_rows(**call.outputs, **call.inputs)
    none = np.isneginf(exact_lse)
    assert np.array_equal(np.isneginf(lse), none)
    assert_close(np.where(none, 0, lse), np.where(none, 0, exact_lse))
    assert_close(out, exact_out)


@pytest.mark.parametrize("dtypes", DTYPES)
@pytest.mark.parametrize(("shape", "rows", "starts", "step"), CASES)
def test_values(rng, shape, rows, starts, step, dtypes):
    assert_reference(make(rng, shape, rows, starts, step, dtypes))
    assert_reference(make_with_gaps(rng, shape, rows, starts, step, dtypes))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_one_side_without_keys(rng, dtypes):
    """The other side stays exactly as it is, whatever lies on this one."""
    call = make(rng, (2, 30, 3, 16), 30, [0, 0, 0], 1, dtypes)
    part, lse = call.inputs["part"], call.outputs["lse"]
    nothing = np.full_like(call.inputs["part_lse"], -np.inf)
    out, found = call(part=np.full_like(part, np.nan), part_lse=nothing)
    assert np.array_equal(out, call.outputs["out"])
    assert np.array_equal(found, lse)

    call.outputs = {
        "out": np.full_like(call.outputs["out"], np.nan),
        "lse": np.full_like(lse, -np.inf),
    }
    out, found = call()
    assert np.array_equal(found, call.inputs["part_lse"].reshape(found.shape))
    expected = part.reshape(2, 3, 30, 16).transpose(0, 2, 1, 3).astype(dtypes[0])
    assert np.array_equal(out, expected)

    out, found = call(part_lse=nothing)
    assert np.isneginf(found).all()
    assert np.isnan(out).all()  # as it was


def test_far_apart(rng):
    """Denominators that differ by more than float32 can hold, at any size of the LSE."""
    for low, high in [(-1e30, 1e30), (-200.0, 200.0), (1e4, 1e4), (-3e38, -3e38), (60.0, 0.0)]:
        call = make(rng, (1, 8, 1, 4), 8, [0], 1)
        call.outputs["lse"][:] = low
        call.inputs["part_lse"][:] = high
        assert_reference(call)


def test_nan_stays(rng):
    call = make(rng, (1, 8, 2, 4), 8, [0, 0], 1)
    call.outputs["lse"][0, 0, 3] = np.nan
    call.inputs["part_lse"][1, 5] = np.nan
    out, lse = call()
    expected = np.zeros((1, 2, 8), bool)
    expected[0, 0, 3] = expected[0, 1, 5] = True
    assert np.array_equal(np.isnan(lse), expected)
    assert np.array_equal(np.isnan(out).all(axis=-1), expected.transpose(0, 2, 1))


def test_softmax_over_two_sets_of_keys(rng):
    """What it is for: attention over two halves of the keys is that over all."""
    scores, values = rng.standard_normal((20, 34)) * 3, rng.standard_normal((34, 8))
    sides = []
    for keys in (slice(0, 13), slice(13, None), slice(None)):
        lse = np.logaddexp.reduce(scores[:, keys], axis=1)
        sides.append((np.exp(scores[:, keys] - lse[:, None]) @ values[keys], lse))
    (out, lse), (part, part_lse), (whole, whole_lse) = sides
    call = Call(
        "merge_rows",
        {"out": np.float32(out)[None, :, None], "lse": np.float32(lse)[None, None]},
        {"part": np.float32(part)[None], "part_lse": np.float32(part_lse)[None]},
    )
    found, found_lse = call(starts=[0], step=1)
    assert_close(found[0, :, 0], whole)
    assert_close(found_lse[0, 0], whole_lse)


def test_bad_values(rng):
    stepped_rows_cases.check_bad_values(make(rng, (1, 9, 2, 4), 4, [0, 1], 1))


def test_bad_arrays(rng):
    call = make(rng, (1, 9, 2, 4), 4, [0, 1], 1)
    with pytest.raises(
        longnet.ShapeError, match="starts, expected a multiple of the 2 heads of out"
    ):
        call(starts=[0, 1, 2])
    with pytest.raises(longnet.ShapeError, match=r"part: shape \(2, 4, 4\), expected \(4, 4, 4\)"):
        call(starts=[0, 1, 2, 3])
    with pytest.raises(longnet.ShapeError, match="4 starts, expected one for each of the 2 heads"):
        call(starts=[0, 1, 2, 3], part=np.zeros((4, 4, 4), np.float32))
    with pytest.raises(longnet.ShapeError, match=r"lse: shape \(1, 2, 8\), expected \(1, 2, 9\)"):
        call(lse=np.zeros((1, 2, 8), np.float32))
    with pytest.raises(longnet.ShapeError, match=r"part_lse: shape \(2, 5\), expected \(2, 4\)"):
        call(part_lse=np.zeros((2, 5), np.float32))
    with pytest.raises(longnet.DTypeError, match="out: dtype float16, expected float32"):
        call(out=np.zeros((1, 9, 2, 4), np.float16))
    with pytest.raises(longnet.DTypeError, match="part_lse: dtype float16, expected float32"):
        call(part_lse=np.zeros((2, 4), np.float16))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_contract(rng, dtypes):
    check_contract(make(rng, dtypes=dtypes))


@pytest.mark.parametrize("dtypes", DTYPES)
def test_any_offset(rng, dtypes):
    check_offsets(make(rng, (2, 30, 3, 24), 20, [-5, 0, 9], 2, dtypes))
