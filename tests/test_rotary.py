"""The op rotary against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, check_offsets, poison
from reference.rotary import rotary

import longnet

pytestmark = pytest.mark.usefixtures("device")
ROPE = {"base": 10_000.0, "scale_base": 0.0, "block": 0, "sign": 1}
XPOS = {"base": 10_000.0, "scale_base": 64.0, "block": 100, "sign": 1}


def make(rng, shape=(2, 300, 3, 20), dtype=np.float32, cu_seqlens=None, start=0, **options):
    x = rng.standard_normal(shape).astype(dtype)
    inputs = {"x": x, "cu_seqlens": cu_seqlens, "start": start, **XPOS, "inverse": False, **options}
    return Call("rotary", {"out": poison(*shape, dtype=dtype)}, inputs)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("options", [ROPE, XPOS, {**XPOS, "sign": -1, "inverse": True}])
@pytest.mark.parametrize(
    "shape",
    [(2, 300, 3, 20), (1, 1, 1, 2), (3, 129, 2, 48), (1, 0, 4, 64), (2, 3, 2, 0), (1, 5, 3, 600)],
)
def test_values(rng, shape, options, dtype):
    call = make(rng, shape, dtype, **options)
    assert_close(call()[0], rotary(**call.inputs))


@pytest.mark.parametrize("options", [ROPE, XPOS])
@pytest.mark.parametrize("start", [1, 12_345, 2**31 - 5, 2**40 - 150])
def test_far_positions(rng, start, options):
    call = make(rng, start=start, **options)
    assert_close(call()[0], rotary(**call.inputs))


@pytest.mark.parametrize("cu_seqlens", [[0, 300], [0, 0, 1, 1, 130, 131, 300, 300]])
def test_documents(rng, cu_seqlens):
    call = make(rng, (1, 300, 3, 20), cu_seqlens=np.array(cu_seqlens))
    assert_close(call()[0], rotary(**call.inputs))


@pytest.mark.parametrize("begin", [0, 1, 99, 130, 131, 250, 300])
@pytest.mark.parametrize("documents", [True, False])
def test_parts_of_a_sequence(rng, documents, begin):
    """Rows [begin, end) of a sequence are turned as they are in the whole."""
    x = rng.standard_normal((1, 300, 2, 8)).astype(np.float32)
    cu_seqlens = np.array([0, 0, 1, 130, 130, 131, 270, 300]) if documents else None
    whole = make(rng, x.shape, cu_seqlens=cu_seqlens)(x=x)[0]
    for end in {begin, min(begin + 1, 300), min(begin + 140, 300), 300}:
        part = x[:, begin:end].copy()
        call = make(rng, part.shape, cu_seqlens=cu_seqlens, start=begin)
        assert_close(call(x=part)[0], whole[:, begin:end].astype(float))


@pytest.mark.parametrize("length", [0, 64, 4096])
@pytest.mark.parametrize("start", [0, 2**31 - 5])
def test_longer_contexts(rng, length, start):
    """Pairs on either side of the ramp and on it, with other borders than the usual ones too."""
    for borders in ({"slow": 1.0, "fast": 32.0}, {"slow": 2.5, "fast": 3.0}):
        call = make(rng, (1, 150, 2, 32), start=start, factor=8.0, length=length, **borders)
        assert_close(call()[0], rotary(**call.inputs))


@pytest.mark.parametrize("length", [0, 64])
def test_a_factor_of_one_changes_no_bit(rng, length):
    call = make(rng, **ROPE)
    scaled = call(factor=1.0, length=length, slow=1.0, fast=32.0)
    assert scaled[0].tobytes() == call()[0].tobytes()


def test_only_the_distance_counts(rng):
    """q.k of two rows of one block is what it is at the positions 0 and their distance."""
    q, k = rng.standard_normal((2, 1, 100, 1, 20)).astype(np.float32)
    q[:], k[:] = q[:, :1], k[:, :1]
    turned_q = make(rng, q.shape)(x=q, start=2**33 * 100)  # a multiple of the block
    turned_k = make(rng, q.shape, sign=-1)(x=k, start=2**33 * 100)
    scores = turned_q[0][0, :, 0].astype(float) @ turned_k[0][0, :, 0].T.astype(float)
    for distance in (0, 1, 57):
        diagonal = np.diagonal(scores, -distance)
        assert np.ptp(diagonal) < 1e-5 * np.abs(scores).max()


def test_inverse_is_the_gradient(rng):
    call = make(rng, (1, 30, 2, 12))
    dout = rng.standard_normal((1, 30, 2, 12))
    inputs = {**call.inputs, "x": call.inputs["x"].astype(float)}
    gradient = rotary(**{**inputs, "x": dout, "inverse": True})
    assert_gradients(rotary, inputs, dout, {"x": gradient}, rng)


def test_magnitude_is_bounded(rng):
    call = make(rng, (1, 200_000, 1, 8), scale_base=512.0, block=32_768)
    assert np.abs(call()[0]).max() < 10 * 0.2857 ** (-16_384 / 512)


def test_in_place(rng):
    call = make(rng)
    place = call.inputs["x"].copy()
    call(out=place, x=place)
    assert np.array_equal(place, call()[0])


BAD_VALUES = [
    ({"start": -1}, "start is -1, expected 0 or more"),
    ({"start": 2**63 - 29}, "start is 9223372036854775779, expected 0 or more, and"),
    ({"base": 0.0}, "base is 0, expected more than 0"),
    ({"base": np.nan}, "base is nan, expected a finite number"),
    ({"scale_base": -2.0}, "scale_base is -2, expected 0 or more"),
    ({"block": 0}, "block is 0, expected 1 or more"),
    ({"sign": 0}, "sign is 0, expected 1 or -1"),
    ({"factor": 0.5}, "factor is 0.5, expected 1 or more"),
    ({"factor": np.inf}, "factor is inf, expected a finite number"),
    ({"length": -1}, "length is -1, expected 0 or more"),
    ({"length": 8, "slow": 3.0, "fast": 3.0}, "slow is 3, expected less than fast, 3"),
]


@pytest.mark.parametrize(("change", "message"), BAD_VALUES)
def test_bad_values(rng, change, message):
    with pytest.raises(longnet.ConfigError, match=f"rotary: {message}"):
        make(rng, (1, 30, 2, 4))(**change)


@pytest.mark.parametrize(
    ("cu_seqlens", "start", "outside"),
    [
        ([0, 5], 0, range(5, 30)),
        ([0, 30], 1, range(29, 30)),
        ([3, 30], 0, range(3)),
        ([30], 0, range(30)),
        ([-7, 2**60], 0, range(30)),
        ([0, 20, 10, 30], 0, []),
    ],
)
def test_impossible_documents(rng, device, cu_seqlens, start, outside):
    """An error on the CPU; a GPU, which cannot wait to look, makes rows outside all of them NaN."""
    call = make(rng, (1, 30, 2, 4), cu_seqlens=np.array(cu_seqlens), start=start)
    if device == "cpu":
        with pytest.raises(longnet.ConfigError, match="rotary: cu_seqlens"):
            call()
    else:
        assert np.isnan(call()[0][0, list(outside)]).all()


def test_bad_shapes(rng):
    with pytest.raises(longnet.ShapeError, match="x: head dim 5, expected an even number"):
        make(rng, (1, 3, 2, 5))()
    with pytest.raises(longnet.ShapeError, match="cu_seqlens with a batch of 2, expected"):
        make(rng)(cu_seqlens=np.array([0, 300]))


def test_contract(rng):
    check_contract(make(rng))
    check_contract(make(rng, (1, 300, 3, 20), cu_seqlens=np.array([0, 10, 300])))
    check_offsets(make(rng, (2, 30, 3, 24)))
