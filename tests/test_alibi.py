"""The op alibi: its dimensions' products are the biases."""

import numpy as np
import pytest
from ops import FLOATS, Call, check_contract, check_offsets, poison
from reference.rotary import positions

import longnet

pytestmark = pytest.mark.usefixtures("device")
SLOPES = np.array([4.0, 2**-0.5, 0.0371, 2**-5], np.float32)  # divided by the factor of scores
PARTS = {np.dtype(np.float32): 2**-23}  # of a slope, what its parts lose; 16 bits have two of 8


def make(rng, shape=(2, 300, 4, 24), dtype=np.float32, sign=1, **options):
    x = rng.standard_normal(shape).astype(dtype)
    inputs = {"x": x, "slopes": SLOPES[: shape[2]] if sign == 1 else None, "cu_seqlens": None}
    inputs |= {"start": 0, "block": 512, "sign": sign, **options}
    return Call("alibi", {"out": poison(*shape[:3], 8 + shape[3], dtype=dtype)}, inputs)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sign", [1, -1, 0])
@pytest.mark.parametrize("shape", [(2, 300, 4, 24), (1, 1, 1, 3), (1, 0, 2, 16), (3, 129, 2, 20)])
def test_what_is_there_is_kept(rng, shape, sign, dtype):
    call = make(rng, shape, dtype, sign)
    out = call()[0]
    assert out[..., 8:].tobytes() == call.inputs["x"].tobytes()
    assert np.isfinite(out.astype(np.float32)).all()
    assert sign != 0 or not out[..., :8].any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("start", "block", "cu_seqlens"),
    [
        (0, 512, None),
        (32_500, 32_768, None),  # the block ends within
        (2**40 + 2**24 - 300, 2**24, None),
        (7, 1, None),
        (0, 200, [0, 0, 1, 130, 131, 300]),
        (100, 4096, [0, 50, 250, 400]),
    ],
)
def test_products_are_biases(rng, start, block, cu_seqlens, dtype):
    """slope * (b_k - b_q), but for what all keys of a query have in common, which is small."""
    if dtype == np.float16:
        block = min(block, 2**21)  # slope * b / 256 has no place in float16 from 2^22 on
    documents = None if cu_seqlens is None else np.array(cu_seqlens)
    options = {"start": start, "block": block, "cu_seqlens": documents}
    shape = (1, 300, 4, 8)
    q, k = (
        make(rng, shape, dtype, sign, **options)()[0][0, ..., :8].astype(float) for sign in (1, -1)
    )
    b = (positions(300, start, documents) % block).astype(float)
    for h, slope in enumerate(SLOPES.astype(float)):
        bias = q[:, h] @ k[:, h].T
        common = bias - slope * (b[None, :] - b[:, None])
        lost = PARTS.get(np.dtype(dtype), 2**-15) * slope * b.max()
        np.testing.assert_allclose(common, common[:, :1] + 0 * common, rtol=0, atol=lost)
        # c has two parts of 8 bits where it matters most
        assert np.abs(common).max() <= max(2**-15 * slope * b.max(), 2**-10)


def test_impossible_documents(rng, device):
    """An error on the CPU; a GPU, which cannot wait to look, marks rows outside all with NaN."""
    call = make(rng, (1, 30, 2, 8), cu_seqlens=np.array([0, 20]))
    if device == "cpu":
        with pytest.raises(longnet.ConfigError, match="alibi: cu_seqlens"):
            call()
    else:
        out = call()[0]
        assert np.isnan(out[0, 20:, :, :8]).all()
        assert np.isfinite(out[0, :20]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sign": 2}, "sign is 2, expected 1, -1 or 0"),
        ({"slopes": None}, "no slopes, expected them for queries alone"),
        ({"sign": -1}, "found slopes, expected them for queries alone"),
        ({"block": 0}, "block is 0, expected 1 to 16777216"),
        ({"block": 2**24 + 1}, "block is 16777217, expected 1 to 16777216"),
        ({"start": -1}, "start is -1, expected 0 or more"),
    ],
)
def test_bad_values(rng, change, message):
    with pytest.raises(longnet.ConfigError, match=f"alibi: {message}"):
        make(rng)(**change)


def test_bad_shapes(rng):
    with pytest.raises(longnet.ShapeError, match=r"out: shape \(2, 300, 4, 32\), expected .*28"):
        make(rng)(x=np.zeros((2, 300, 4, 20), np.float32))
    with pytest.raises(longnet.ShapeError, match=r"slopes: shape \(4,\), expected \(3,\)"):
        make(rng, (2, 300, 3, 24))(slopes=SLOPES)


@pytest.mark.parametrize("sign", [1, -1])
def test_contract(rng, sign):
    check_contract(make(rng, sign=sign))
    check_contract(make(rng, (1, 300, 4, 24), sign=sign, cu_seqlens=np.array([0, 10, 300])))
    check_offsets(make(rng, (2, 30, 3, 24), sign=sign))
