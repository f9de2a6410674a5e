"""Gradients in float32 of 16-bit inputs: what parts of a sum are made of, unrounded."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from attention_cases import NAMES, Case, op_arguments, random_case, random_cuts
from ops import Call, poison
from reference.dilated_attention import Pattern

import longnet
from longnet import Tensor

CONFIGURATIONS = 40
HALVES = [np.float16, ml_dtypes.bfloat16]


@pytest.fixture(params=["cpu", *(pytest.param(k, marks=pytest.mark.gpu) for k in ("sm80", "sm90"))])
def kernels(request, monkeypatch):
    """Those of the CPU, and both sets of a GPU."""
    if request.param != "cpu":
        monkeypatch.setattr(Call, "device", "cuda")
        monkeypatch.setenv("LONGNET_CUDA_KERNELS", request.param)
    return request.param


def cast(case: Case, dtype: type) -> Case:
    arrays = {x: getattr(case, x).astype(dtype) for x in ("q", "k", "v", "dout")}
    return replace(case, **arrays)


def make_case(rng, pattern, n, heads, kv_heads, dim, **options):
    shapes = [(2, n, h, dim) for h in (heads, kv_heads, kv_heads, heads)]
    return Case(pattern, *(rng.standard_normal(x, np.float32) for x in shapes), options)


def gradients(case: Case, dtype: type) -> tuple[np.ndarray, ...]:
    """dq, dk and dv of a dtype, written over NaN."""
    options = dict(case.options)
    out, lse = case.computed()[:2]
    inputs = {"dout": case.dout, "q": case.q, "k": case.k, "v": case.v, "out": out, "lse": lse}
    outputs = [poison(*x.shape, dtype=dtype) for x in (case.q, case.k, case.v)]
    options |= op_arguments(case)
    named = dict(zip(NAMES[2:], outputs, strict=True))
    return Call("dilated_attention_backward", named, inputs | options)()


def assert_rounds_to_the_others(case: Case) -> tuple[np.ndarray, ...]:
    """Half of a last place away from the 16-bit ones, but for the order of sums; returns them."""
    dtype = case.q.dtype
    found = gradients(case, np.float32)
    for name, x, y in zip(NAMES[2:], found, gradients(case, dtype), strict=True):
        assert x.dtype == np.float32
        assert y.dtype == dtype
        size = np.abs(y.astype(np.float32))
        step = float(ml_dtypes.finfo(dtype).eps) / 2 * size + 1e-5 * size.max(initial=1.0)
        assert (np.abs(x - y.astype(np.float32)) <= step).all(), (name, case)
    return found


@pytest.mark.parametrize("dtype", HALVES)
def test_random_configurations(kernels, dtype):
    """Every option, odd lengths, any w and r, some of the queries."""
    for seed in range(CONFIGURATIONS):
        case = cast(random_case(seed), dtype)
        assert_rounds_to_the_others(case)
        for cut in random_cuts(seed, case.q.shape[1])[:1]:
            assert_rounds_to_the_others(case.of_queries(*cut))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("dim", [40, 64, 128, 256])
def test_long_segments(kernels, rng, dim, kv_heads, dtype):
    """Of many blocks; sums of each width, written by tiles and by those that round them."""
    pattern = Pattern((100, 800), (1, 3))
    case = cast(make_case(rng, pattern, 1000, 4, kv_heads, dim), dtype)
    for x in assert_rounds_to_the_others(case):
        assert np.mean(x.astype(dtype).astype(np.float32) != x) > 0.9  # more than 16 bits


@pytest.mark.parametrize("dtype", HALVES)
def test_rows_without_a_level(kernels, rng, dtype):
    """A sparse level alone, and rows past the end: zeros there."""
    case = make_case(rng, Pattern((256,), (4,)), 700, 4, 4, 64, lengths=np.array([700, 333]))
    case = cast(case, dtype)
    for x in assert_rounds_to_the_others(case):
        assert not x[:, 1::4, 0].any()
        assert not x[1, 333:].any()
        assert np.isfinite(x).all()


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["sm80", "sm90"], indirect=True)
def test_impossible_lengths_make_nan(kernels, rng):
    case = cast(make_case(rng, Pattern((24, 70), (1, 3)), 101, 2, 2, 16), np.float16)
    arrays = [Tensor(x).to("cuda") for x in (case.dout, case.q, case.k, case.v)]
    lengths = Tensor(np.array([101, 102])).to("cuda")
    attention = longnet.DilatedAttention((24, 70), (1, 3))
    out, lse = attention.forward(*arrays[1:], lengths=lengths)
    found = attention.backward(*arrays, out, lse, lengths=lengths, dtype="float32")
    for x in found:
        assert np.isnan(x.to("cpu").numpy()[1]).all()


def test_by_name(rng):
    """`backward` gives them where it is asked to."""
    case = cast(make_case(rng, Pattern((20, 60), (1, 3)), 90, 2, 2, 16), np.float16)
    attention = longnet.DilatedAttention((20, 60), (1, 3))
    out, lse = attention.forward(case.q, case.k, case.v)
    inputs = case.dout, case.q, case.k, case.v, out, lse
    wide = attention.backward(*inputs, dtype="float32")
    for x, y in zip(wide, gradients(case, np.float32), strict=True):
        assert x.tobytes() == y.tobytes()
    for dtype in (None, "float16"):
        for x, y in zip(wide, attention.backward(*inputs, dtype=dtype), strict=True):
            assert y.dtype == np.float16
            assert x.astype(np.float16).tobytes() == y.tobytes()


@pytest.mark.parametrize(
    ("dtype", "error", "words"),
    [
        ("bfloat16", longnet.DTypeError, "dq: dtype bfloat16, expected float32 or float16"),
        ("int32", longnet.DTypeError, "dq: dtype int32, expected float32 or float16"),
        ("half", longnet.DTypeError, "dtype 'half', expected float32"),
        (32, TypeError, "dtype: 32, expected a string or None"),
    ],
)
def test_other_dtypes(dtype, error, words):
    q = np.zeros((1, 10, 2, 16), np.float16)
    lse = np.zeros((1, 2, 10), np.float32)
    with pytest.raises(error, match=words):
        longnet.DilatedAttention([4], [1]).backward(q, q, q, q, q, lse, dtype=dtype)


def test_gradients_of_two_dtypes(rng):
    case = cast(make_case(rng, Pattern((24,), (1,)), 30, 2, 2, 16), np.float16)
    outputs = {name: poison(*case.q.shape) for name in ("dq", "dk", "dv")}
    outputs["dv"] = outputs["dv"].astype(np.float16)
    with pytest.raises(longnet.DTypeError, match="dv: dtype float16, expected float32"):
        longnet._core.ops.dilated_attention_backward(
            **outputs,
            **{"dout": case.dout, "q": case.q, "k": case.k, "v": case.v, "out": case.q},
            **{"lse": np.zeros((2, 2, 30), np.float32), "segment_lengths": (24,)},
            **{"dilation_rates": (1,), "offsets": 0, "causal": True, "detached": False},
            **{"zero_keys": False, "deterministic": False, "scale": 0.25, "dropout": 0.0},
            seed=0,
        )
