"""Some of the queries and all of the keys on a GPU, against the reference and the CPU."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from attention_cases import (
    NAMES,
    Case,
    op_arguments,
    random_case,
    random_cuts,
    relative_error,
)
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

import longnet
from longnet import Tensor

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.gpu

CONFIGURATIONS = 60
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of the largest value
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def make_case(rng, pattern, n, heads=4, kv_heads=4, dim=32, batch=1, dtype="float32", **options):
    shapes = [(batch, n, h, dim) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [rng.standard_normal(shape).astype(DTYPES[dtype]) for shape in shapes]
    return Case(pattern, *arrays, options)


def cast(case, dtype):
    arrays = {x: getattr(case, x).astype(DTYPES[dtype]) for x in ("q", "k", "v", "dout")}
    return replace(case, **arrays)


def arguments(case):
    """What an op is told beside its tensors."""
    options = dict(case.options)
    row, level = options.pop("dropout_origin", (0, 0))
    rows = {
        name: Tensor(np.asarray(options.pop(name), np.int64)).to("cuda")
        for name in ("lengths", "cu_seqlens")
        if name in options
    }
    return {
        "first_row": row,
        "first_level": level,
        **rows,
        **options,
        **op_arguments(case),
    }


def on_gpu(case):
    """Out, lse, dq, dk and dv, written over NaN."""

    def nan(shape, dtype):
        return Tensor(np.full(shape, np.nan, dtype)).to("cuda")

    (batch, queries, heads, _), dtype = case.q.shape, case.q.dtype
    q, k, v, dout = (Tensor(x).to("cuda") for x in (case.q, case.k, case.v, case.dout))
    out, lse = nan(case.q.shape, dtype), nan((batch, heads, queries), np.float32)
    dq, dk, dv = (nan(x.shape, dtype) for x in (case.q, case.k, case.v))
    options = arguments(case)
    longnet._core.ops.dilated_attention(out, lse, q, k, v, **options)
    longnet._core.ops.dilated_attention_backward(dq, dk, dv, dout, q, k, v, out, lse, **options)
    return tuple(x.to("cpu").numpy() for x in (out, lse, dq, dk, dv))


def assert_pieces_are_right(case, cuts):
    """Against the CPU, which computes in float32 whatever the dtype is."""
    for cut in itertools.pairwise(cuts):
        piece = case.of_queries(*cut)
        expected = tuple(x.astype(float) for x in cast(piece, "float32").computed())
        errors = piece.errors(on_gpu(piece), expected)
        assert max(errors.values()) < TOLERANCE[str(case.q.dtype)], f"rows {cut} of {case} {errors}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_pieces(dtype):
    """Every option, odd lengths, any w and r, pieces that may be empty: together the whole.

    The gradients of a piece of a few rows may cancel to rounding.
    """
    wrong = []
    for seed in range(CONFIGURATIONS):
        case = cast(random_case(seed), dtype)
        cuts = random_cuts(seed, case.q.shape[1])
        out, lse, dq, dk, dv = zip(*(on_gpu(case.of_queries(*x)) for x in cuts), strict=True)
        rows = (np.concatenate(x, axis) for x, axis in ((out, 1), (lse, 2), (dq, 1)))
        sums = (np.sum([piece.astype(float) for piece in x], axis=0) for x in (dk, dv))
        errors = case.errors((*rows, *sums), case.expected())
        if not max(errors.values()) <= TOLERANCE[dtype]:
            wrong.append(f"{seed}: {case} {errors}")
    assert not wrong, "\n".join([f"{len(wrong)} configurations", *wrong[:10]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [48, 64, 128, 256])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_wide_heads_with_every_option(rng, dim, dropout, dtype):
    pattern = Pattern((100, 300), (1, 3), False, "grouped", "detached", True, -0.1, dropout)
    case = make_case(rng, pattern, 411, 4, 2, dim, 2, dtype, lengths=np.array([411, 250]))
    case.options.update(seed=2**63 + 5, dropout_origin=(2**33 + 12, 60))
    assert_pieces_are_right(case, [0, 7, 160, 411])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gradient", ["exact", "detached"])
def test_pieces_of_long_segments(rng, causal, gradient, dtype):
    """Segments of many blocks, which pieces begin and end inside of."""
    pattern = Pattern((350, 1400, 700), (1, 3, 2), causal, gradient=gradient)
    case = make_case(rng, pattern, 1501, 6, 2, 48, dtype=dtype)
    assert_pieces_are_right(case, [0, 3, 400, 1300, 1501])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
def test_pieces_of_many_groups(rng, causal, dtype):
    """Sums rest between the levels of many small groups, the first and the last of them in part."""
    pattern = Pattern((16, 64, 256), (1, 4, 16), causal)
    case = make_case(rng, pattern, 3000, 8, 4, 64, 2, dtype)
    assert_pieces_are_right(case, [0, 300, 1801, 3000])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dim", [48, 64, 128])
def test_packed_segments(rng, causal, dim, dtype):
    """One level of all rows and many batch items of one head, some of which end early."""
    n = 700
    lengths = rng.integers(0, n + 1, 40)
    pattern = Pattern((2**40,), (1,), causal, dropout=0.1 if dim == 64 else 0.0)
    case = make_case(rng, pattern, n, 1, 1, dim, 40, dtype, lengths=lengths, seed=3)
    assert_pieces_are_right(case, [0, 129, 300, 700])


@pytest.mark.parametrize("causal", [True, False])
def test_pieces_of_documents(rng, causal):
    ends = np.array([0, 0, 17, 18, 200, 555, 555, 600])
    pattern = Pattern((64, 128, 500), (1, 2, 5), causal, zero_keys=True)
    case = make_case(rng, pattern, 600, 4, 2, 24, cu_seqlens=ends)
    assert_pieces_are_right(case, [0, 10, 18, 190, 440, 555, 600])


def test_drops_what_the_cpu_drops(rng):
    """V is the identity: the output shows which keys each query kept."""
    pattern = Pattern((100, 100), (1, 3), dropout=0.4, scale=0.0)
    case = make_case(rng, pattern, 100, 3, 3, 104, seed=77, dropout_origin=(2**31 + 5, 9))
    case.v[:] = np.eye(100, 104)[None, :, None]
    for piece in (case.of_queries(0, 100), case.of_queries(37, 90)):
        ours, theirs = piece.computed()[0], on_gpu(piece)[0]
        np.testing.assert_array_equal(ours > 0, theirs > 0)
        assert relative_error(theirs, ours) < 1e-6


@pytest.mark.parametrize("causal", [True, False])
def test_dropout_of_a_whole_call_has_an_origin(rng, causal):
    """Also beyond 32 bits, where the high half of a segment's first row goes into the key."""
    pattern = Pattern((40, 130), (1, 3), causal, dropout=0.4)
    case = make_case(rng, pattern, 411, 4, 2, seed=6)
    for origin in ((0, 0), (1040, 3), (2**32 - 300, 0), (2**50, 62)):
        case.options["dropout_origin"] = origin
        if origin[0] >> 32 != (origin[0] + 400) >> 32:
            with pytest.raises(longnet.ConfigError, match=r"dropout from row 4294966996 .* 2\^32"):
                on_gpu(case)
        else:
            assert_pieces_are_right(case, [0, 411])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
def test_keys_that_no_query_sees_are_not_read(rng, causal, dtype):
    """Keys and values there may be NaN; their gradients are 0."""
    pattern, (begin, end) = Pattern((24, 70), (1, 3), causal), (30, 45)
    piece = make_case(rng, pattern, 101, 4, 2, dtype=dtype).of_queries(begin, end)
    clean = on_gpu(piece)
    sees = [reference.visible(pattern, 101, h, 4)[begin:end].any(axis=0) for h in range(4)]
    unseen = ~np.stack([sees[0] | sees[1], sees[2] | sees[3]], axis=1)
    assert 0.2 < unseen.mean() < 0.8
    for x in (piece.k, piece.v):
        x[0, unseen] = np.nan
    results = on_gpu(piece)
    for name, x, y in zip(NAMES, results, clean, strict=True):
        np.testing.assert_array_equal(x.astype(float), y.astype(float), err_msg=name)
    assert not any(x[0, unseen].any() for x in results[3:])


@pytest.mark.parametrize("dim", [16, 256])
@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_no_queries(rng, shape, dim):
    """No batch items, or no queries: nothing, and gradients of 0."""
    batch, rows = shape
    case = make_case(rng, Pattern((24, 70), (1, 3)), 101, dim=dim, batch=batch)
    for begin in (0, 50, 101 - rows):
        out, lse, dq, dk, dv = on_gpu(case.of_queries(begin, begin + rows))
        assert out.shape == dq.shape == (batch, rows, 4, dim)
        assert lse.shape == (batch, 4, rows)
        assert dk.shape == dv.shape == case.k.shape
        assert not any(x.any() for x in (dk, dv))


@pytest.mark.parametrize("options", [{"lengths": [101, 102]}, {"cu_seqlens": [0, 50, 40, 101]}])
def test_impossible_lengths_make_nan(rng, options):
    batch = 2 if "lengths" in options else 1
    case = make_case(rng, Pattern((24, 70), (1, 3)), 101, 2, 2, 16, batch, **options)
    for name, x in zip(NAMES, on_gpu(case.of_queries(20, 60)), strict=True):
        assert np.isnan(x[batch - 1]).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_every_time(rng, dtype):
    pattern = Pattern((256, 1024), (1, 4), gradient="detached", dropout=0.1)
    piece = make_case(rng, pattern, 3001, 6, 3, 40, dtype=dtype, seed=5).of_queries(700, 2950)
    first = on_gpu(piece)
    for _ in range(10):
        for name, x, y in zip(NAMES, first, on_gpu(piece), strict=True):
            assert x.tobytes() == y.tobytes(), name
