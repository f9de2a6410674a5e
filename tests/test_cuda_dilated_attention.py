"""Dilated attention on a GPU against the naive reference and the CPU backend."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from attention_cases import NAMES, Case, random_case, relative_error
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

import longnet
from longnet import Tensor

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.gpu

CONFIGURATIONS = 120
PAPER = Pattern((32, 64, 128), (1, 2, 4))  # the paper's shape, small
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of the largest value
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture(params=["sm80", "sm90"], autouse=True)
def kernels(request, monkeypatch):
    """Hopper has kernels of its own beside those of every GPU from Ampere on."""
    monkeypatch.setenv("LONGNET_CUDA_KERNELS", request.param)


def make_case(rng, pattern, n, heads=4, kv_heads=4, dim=32, batch=1, dtype="float32", **options):
    shapes = [(batch, n, h, dim) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [rng.standard_normal(shape).astype(DTYPES[dtype]) for shape in shapes]
    return Case(pattern, *arrays, options)


def rounded(case, dtype):
    return replace(
        case, **{x: getattr(case, x).astype(DTYPES[dtype]) for x in ("q", "k", "v", "dout")}
    )


def on_gpu(case):
    """Out, lse, dq, dk and dv of a GPU, as arrays."""
    attention = longnet.DilatedAttention(**asdict(case.pattern))
    q, k, v, dout = (Tensor(x).to("cuda") for x in (case.q, case.k, case.v, case.dout))
    options = {
        name: Tensor(np.asarray(x, np.int64)).to("cuda") if name != "seed" else x
        for name, x in case.options.items()
    }
    out, lse = attention.forward(q, k, v, **options)
    gradients = attention.backward(dout, q, k, v, out, lse, **options)
    return tuple(x.to("cpu").numpy() for x in (out, lse, *gradients))


def assert_close(case, tolerance):
    errors = case.errors(on_gpu(case), case.expected())
    assert max(errors.values()) < tolerance, f"{case} {errors}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_configurations(dtype):
    """Every option, odd lengths, any w and r."""
    wrong = []
    for seed in range(CONFIGURATIONS):
        case = rounded(random_case(seed), dtype)
        errors = case.errors(on_gpu(case), case.expected())
        if not max(errors.values()) <= TOLERANCE[dtype]:
            wrong.append(f"{seed}: {case} {errors}")
    assert not wrong, "\n".join([f"{len(wrong)} configurations", *wrong[:10]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", range(16, 257, 8))
def test_every_head_dim(rng, dim, dtype):
    case = make_case(rng, Pattern((40, 130), (1, 3)), 131, 3, 1, dim, dtype=dtype)
    assert_close(case, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_wide_heads_with_every_option(rng, dim, dropout, dtype):
    pattern = Pattern((100, 300), (1, 3), False, "grouped", "detached", True, -0.1, dropout)
    case = make_case(rng, pattern, 411, 4, 2, dim, 2, dtype, lengths=np.array([411, 250]))
    if dropout > 0.0:
        case.options["seed"] = 2**63 + 5
    assert_close(case, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gradient", ["exact", "detached"])
def test_long_segments(rng, causal, gradient, dtype):
    """Segments of many blocks, a short last segment, rows that end inside a block."""
    pattern = Pattern((350, 1400, 700), (1, 3, 2), causal, gradient=gradient)
    assert_close(make_case(rng, pattern, 1501, 6, 2, 48, dtype=dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("causal", [True, False])
def test_documents(rng, causal):
    ends = np.array([0, 0, 17, 18, 200, 555, 555, 600])
    pattern = Pattern((64, 128, 500), (1, 2, 5), causal, zero_keys=True)
    assert_close(make_case(rng, pattern, 600, 4, 2, 24, cu_seqlens=ends), 1e-5)


def test_many_levels(rng):
    pattern = Pattern(tuple(range(10, 74)), tuple(1 + i % 7 for i in range(64)))
    assert_close(make_case(rng, pattern, 150, 4, 2, 16), 1e-5)


def plain(case):
    """The definition with what a 16-bit implementation keeps in 16 bits: P, dS and the results."""
    dtype, scale = case.q.dtype, case.q.shape[-1] ** -0.5
    q, k, v, dout = (x.astype(np.float64) for x in (case.q, case.k, case.v, case.dout))
    out, lse = case.expected()[:2]
    results = [np.zeros(x.shape) for x in (q, q, k, v)]
    for x in reference.each_head(case.pattern, q, k, **case.options):
        here, there = (x.b, x.rows, x.head), (x.b, x.rows, x.kv_head)
        s = scale * q[here] @ k[there].T
        for sees in x.sees:
            p = reference.softmax(s, sees, lse[x.b, x.head, x.rows])
            delta = (dout[here] * out[here].astype(dtype).astype(float)).sum(axis=1)
            ds = p * (dout[here] @ v[there].T - delta[:, None])
            p, ds = p.astype(dtype).astype(float), ds.astype(dtype).astype(float)
            results[0][here] += p @ v[there]
            results[1][here] += scale * ds @ k[there]
            results[2][there] += scale * ds.T @ q[here]
            results[3][there] += p.T @ dout[here]
    return [x.astype(dtype) for x in results]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("dim", [32, 64, 128, 200])
def test_half_precision(rng, dtype, dim):
    """At most twice the error of a plain implementation."""
    case = make_case(rng, PAPER, 301, kv_heads=2, batch=2, dim=dim, dtype=dtype)
    exact, computed = case.expected(), on_gpu(case)
    assert relative_error(computed[1], exact[1]) < 1e-5
    names = [x for x in NAMES if x != "lse"]
    for name, mine in zip(names, plain(case), strict=True):
        found, right = computed[NAMES.index(name)], exact[NAMES.index(name)]
        limit = np.sqrt(np.mean((mine.astype(float) - right) ** 2))
        assert np.sqrt(np.mean((found.astype(float) - right) ** 2)) <= 2 * limit, name
        assert relative_error(found, right) <= 2 * relative_error(mine, right), name


def test_drops_what_the_cpu_drops(rng):
    """V is the identity: the output shows which keys each query kept."""
    pattern = Pattern((100, 100), (1, 3), dropout=0.4, scale=0.0)
    case = make_case(rng, pattern, 100, 3, 3, 104, seed=77)
    case.v[:] = np.eye(100, 104)[None, :, None]
    ours, theirs = case.computed()[0], on_gpu(case)[0]
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    assert relative_error(theirs, ours) < 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_every_time(rng, dtype):
    pattern = Pattern((256, 1024), (1, 4), gradient="detached", dropout=0.1)
    case = make_case(rng, pattern, 3001, 6, 3, 40, dtype=dtype, seed=5)
    first = on_gpu(case)
    for _ in range(20):
        for name, x, y in zip(NAMES, first, on_gpu(case), strict=True):
            assert x.tobytes() == y.tobytes(), name


@pytest.mark.parametrize("causal", [True, False])
def test_padding_does_not_exist(rng, causal):
    lengths = np.array([101, 0, 1, 77])
    case = make_case(rng, Pattern((24, 70), (1, 3), causal), 101, 4, 2, 16, 4, lengths=lengths)
    clean = on_gpu(case)
    for item, length in enumerate(lengths):
        for x in (case.q, case.k, case.v, case.dout):
            x[item, length:] = np.nan
    for name, x, y in zip(NAMES, on_gpu(case), clean, strict=True):
        assert x.tobytes() == y.tobytes(), name
    for item, length in enumerate(lengths):
        assert not clean[0][item, length:].any()
        assert np.isneginf(clean[1][item, :, length:]).all()


def test_uncovered_rows(rng):
    """No level covers head 1 at even rows: output 0, LSE -inf, and no gradient."""
    case = make_case(rng, Pattern((8,), (2,)), 101)
    case.dout[:, ::2, 1] = np.nan
    out, lse, dq, dk, dv = on_gpu(case)
    assert np.isneginf(lse[:, 1, ::2]).all()
    assert not any(x[:, ::2, 1].any() for x in (out, dq, dk, dv))
    assert all(np.isfinite(x).all() for x in (dq, dk, dv))


@pytest.mark.parametrize(
    "options",
    [
        {"lengths": [101, 102]},
        {"lengths": [-1, 5]},
        {"cu_seqlens": [0, 50, 40, 101]},
        {"cu_seqlens": [0, 50, 2**40]},
        {"cu_seqlens": [1, 101]},
    ],
)
def test_impossible_lengths_make_nan(rng, options):
    """The GPU's numbers cannot be looked at without waiting for it: the results say so."""
    batch = 2 if "lengths" in options else 1
    case = make_case(rng, Pattern((24, 70), (1, 3)), 101, 2, 2, 16, batch, **options)
    bad = 0 if options.get("lengths", [0])[0] < 0 else batch - 1
    for name, x in zip(NAMES, on_gpu(case), strict=True):
        assert np.isnan(x[bad]).all(), name


def test_no_documents(rng):
    case = make_case(rng, PAPER, 50, cu_seqlens=np.array([0]))
    with pytest.raises(longnet.LongNetError, match="cu_seqlens"):
        on_gpu(case)


def test_nothing():
    for shape in ((0, 5, 2, 16), (2, 0, 2, 16)):
        empty = np.zeros(shape, np.float32)
        results = on_gpu(Case(PAPER, *[empty] * 4, {}))
        assert [x.shape for x in results] == [shape, (shape[0], 2, shape[1]), *[shape] * 3]


def test_strided_views(rng):
    case = make_case(rng, PAPER, 120, dim=40)
    attention = longnet.DilatedAttention(**asdict(PAPER))
    wide = [Tensor(np.repeat(x, 2, axis=1)).to("cuda")[:, ::2] for x in (case.q, case.k, case.v)]
    out = attention.forward(*wide)[0]
    np.testing.assert_array_equal(out.to("cpu").numpy(), on_gpu(case)[0])
