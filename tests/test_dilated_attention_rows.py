"""Calls with some of the queries and all of the keys, against the call with all of both."""

import itertools
from dataclasses import asdict, replace
from functools import cache

import attention_cases
import numpy as np
import pytest
from attention_cases import NAMES, Case, random_case, random_cuts, relative_error
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

longnet = pytest.importorskip("longnet")

CONFIGURATIONS = 120
PATTERN = Pattern((24, 70), (1, 3))


def make_case(rng, pattern=PATTERN, n=101, heads=4, kv_heads=2, dim=16, batch=1, **options):
    dtype = options.pop("dtype", np.float32)
    shapes = [(batch, n, h, dim) for h in (heads, kv_heads, kv_heads, heads)]
    return Case(pattern, *(rng.standard_normal(x).astype(dtype) for x in shapes), options)


def assert_pieces_are_the_whole(case, cuts, tolerance=1e-5):
    """Outputs have the same bits, dq and the sums of dk and dv the same values."""
    whole = case.computed()
    pieces = [case.of_queries(*cut).computed() for cut in itertools.pairwise(cuts)]
    out, lse, dq, dk, dv = zip(*pieces, strict=True)
    together = (
        np.concatenate(out, axis=1),
        np.concatenate(lse, axis=2),
        np.concatenate(dq, axis=1),
        sum(x.astype(np.float32) for x in dk),
        sum(x.astype(np.float32) for x in dv),
    )
    for name, x, y in zip(NAMES[:2], together, whole, strict=False):
        assert x.tobytes() == y.tobytes(), name
    for name, error in case.errors(together, tuple(x.astype(float) for x in whole)).items():
        assert error < tolerance, name


@cache
def expected_pieces(seed):
    case = random_case(seed)
    cuts = random_cuts(seed, case.q.shape[1])
    return [(cut, case.expected_of_queries(*cut)) for cut in cuts]


@pytest.mark.parametrize("instruction_set", ["scalar", "avx2", "avx512"])
def test_random_pieces(instruction_set, python, tmp_path):
    """Against the reference, where fresh memory is NaN; queries of other pieces do not exist."""
    file = tmp_path / "results.npz"
    done = python(
        attention_cases.__file__,
        str(CONFIGURATIONS),
        str(file),
        "pieces",
        LONGNET_CPU=instruction_set,
        LONGNET_POISON="1",
    )
    if f"this processor has no {instruction_set}" in done.stderr:
        pytest.skip(f"this processor has no {instruction_set}")
    assert done.returncode == 0, done.stderr
    wrong = []
    with np.load(file) as results:
        for seed in range(CONFIGURATIONS):
            case = random_case(seed)
            for i, (cut, expected) in enumerate(expected_pieces(seed)):
                computed = tuple(results[f"{seed}/{i}/{name}"] for name in NAMES)
                errors = case.errors(computed, expected)
                if not max(errors.values()) <= 1e-5:
                    wrong.append(f"{seed}: rows {cut} of {case} {errors}")
    assert not wrong, "\n".join([f"{len(wrong)} pieces", *wrong[:10]])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gradient", ["exact", "detached"])
def test_pieces_of_long_segments(rng, causal, gradient):
    """Many blocks of keys and of queries, with ends inside of them."""
    pattern = Pattern((700, 5200), (1, 2), causal, gradient=gradient, dropout=0.1)
    case = make_case(rng, pattern, 5003, heads=2, kv_heads=1, seed=3)
    assert_pieces_are_the_whole(case, [0, 1, 450, 2700, 4990, 5003], 2e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("offsets", ["interleaved", "grouped"])
def test_pieces_of_half_precision(rng, causal, offsets):
    """Several waves of rows and heads; out and lse keep their bits, gradients are rounded once."""
    pattern = Pattern((64, 128, 4096), (1, 5, 40), causal, offsets)
    case = make_case(rng, pattern, 5000, heads=8, kv_heads=4, dtype=np.float16, batch=2)
    assert_pieces_are_the_whole(case, [0, 100, 128, 3000, 5000], 2e-3)
    case = replace(case, options={"lengths": np.array([4500, 90])})
    assert_pieces_are_the_whole(case, [0, 100, 128, 3000, 5000], 2e-3)


@pytest.mark.parametrize("causal", [True, False])
def test_same_bits_for_any_number_of_threads(rng, restore_threads, causal):
    pattern = Pattern((256, 3001), (1, 2), causal, gradient="detached", dropout=0.1)
    case = make_case(rng, pattern, 3001, heads=2, seed=5).of_queries(700, 2950)
    runs = []
    for threads in (1, 2, 4, 4):
        longnet.set_num_threads(threads)
        runs.append(case.computed())
    for run in runs[1:]:
        for name, first, other in zip(NAMES, runs[0], run, strict=True):
            assert first.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("causal", [True, False])
def test_keys_that_no_query_sees_are_not_read(rng, causal, dtype):
    """Keys and values there may be NaN; their gradients are 0."""
    pattern, (begin, end) = replace(PATTERN, causal=causal), (30, 45)
    case = make_case(rng, pattern, dtype=dtype)
    piece = case.of_queries(begin, end)
    clean = piece.computed()
    unseen = np.stack(
        [
            sum(reference.visible(pattern, 101, h, 4)[begin:end].sum(axis=0) for h in pair) == 0
            for pair in ((0, 1), (2, 3))
        ],
        axis=1,
    )
    assert 0.2 < unseen.mean() < 0.8
    for x in (piece.k, piece.v):
        x[0, unseen] = np.nan
    results = piece.computed()
    for name, x, y in zip(NAMES, results, clean, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)
    assert not any(x[0, unseen].any() for x in results[3:])
    assert all(x[0, ~unseen].any(axis=1).all() for x in results[3:])


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_no_queries(rng, shape):
    """No batch items, or no queries at the end of the rows: nothing, and gradients of 0."""
    batch, rows = shape
    case = make_case(rng, batch=batch, n=7)
    out, lse, dq, dk, dv = case.of_queries(7 - rows, 7).computed()
    assert out.shape == dq.shape == (batch, rows, 4, 16)
    assert lse.shape == (batch, 4, rows)
    assert dk.shape == dv.shape == case.k.shape
    assert not dk.any()
    assert not dv.any()


@pytest.mark.parametrize("causal", [True, False])
def test_whole_segments_drop_what_the_whole_does(rng, causal):
    """A sequence of its own that has the whole's segments, and one with its second level alone."""
    pattern = Pattern((20, 60), (1, 3), causal, dropout=0.4)
    case = make_case(rng, pattern, 200, seed=9)
    begin, end = 60, 180
    arrays = (np.ascontiguousarray(x[:, begin:end]) for x in (case.q, case.k, case.v, case.dout))
    own = Case(pattern, *arrays, case.options | {"dropout_origin": (begin, 0)})
    whole = case.computed()
    rows = whole[0][:, begin:end], whole[1][..., begin:end], *(x[:, begin:end] for x in whole[2:])
    for name, x, y in zip(NAMES, own.computed(), rows, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)
    level = Pattern((60,), (3,), causal, dropout=0.4)
    own = replace(own, pattern=level, options=case.options | {"dropout_origin": (begin, 1)})
    assert max(own.errors(own.computed(), own.expected()).values()) < 1e-5
    other = replace(own, options=case.options)
    assert not np.array_equal(own.computed()[0], other.computed()[0])


def test_a_dropout_origin_beyond_32_bits(rng):
    """The high half of a segment's first row goes into the key: another mask."""
    case = make_case(rng, replace(PATTERN, dropout=0.5), seed=1)
    near = replace(case, options={"seed": 1, "dropout_origin": (24 * 70, 0)})
    far = replace(case, options={"seed": 1, "dropout_origin": (24 * 70 + 2**32, 0)})
    key = replace(case, options={"seed": 1 ^ 1 << 32, "dropout_origin": (24 * 70, 0)})
    assert not np.array_equal(near.computed()[0], far.computed()[0])
    np.testing.assert_array_equal(key.computed()[0], far.computed()[0])


@pytest.mark.parametrize("causal", [True, False])
def test_packed_segments_drop_what_the_whole_does(rng, causal):
    """The rows of one segment that take part, a batch item for each head, some of the queries."""
    w, r, heads, segment, level = 64, 3, 4, 2, 5
    pattern = Pattern((w,), (r,), causal, dropout=0.4)
    case = make_case(rng, pattern, 3 * w, heads, batch=2, seed=8, dropout_origin=(0, level))
    out = case.computed()[0]
    shape = 2 * heads, -(-w // r), 1, 16
    q, k, v = (np.full(shape, np.nan, np.float32) for _ in range(3))
    rows = [np.arange(h % r, w, r) + segment * w for h in range(heads)]
    for b, h in itertools.product(range(2), range(heads)):
        item = b * heads + h
        for to, x, head in ((q, case.q, h), (k, case.k, h // 2), (v, case.v, h // 2)):
            to[item, : len(rows[h]), 0] = x[b, rows[h], head]
    packed = longnet.DilatedAttention([w], [1], causal, dropout=0.4)
    options = {
        "seed": 8,
        "dropout_origin": (segment * w, level),
        "lengths": np.array([len(rows[h]) for h in range(heads)] * 2),
        "query_start": 5,
    }
    found, _ = packed.forward(q[:, 5:], k, v, **options)
    for b, h in itertools.product(range(2), range(heads)):
        expected = out[b, rows[h][5:], h]
        computed = found[b * heads + h, : len(expected), 0]
        assert relative_error(computed, expected.astype(float)) < 1e-5


def test_the_op_itself_takes_them(rng):
    case = make_case(rng, n=40).of_queries(10, 30)
    expected = case.computed()
    pattern = asdict(case.pattern) | {"scale": 0.25, "offsets": 0, "detached": False, "seed": 0}
    del pattern["gradient"]
    q, k, v, dout = case.q, case.k, case.v, case.dout
    out, lse, dq, dk, dv = (np.full_like(x, np.nan) for x in expected)
    longnet._core.ops.dilated_attention(
        out, lse, q, k, v, **pattern, deterministic=False, query_start=10
    )
    longnet._core.ops.dilated_attention_backward(
        dq, dk, dv, dout, q, k, v, out, lse, **pattern, deterministic=False, query_start=10
    )
    for name, x, y in zip(NAMES, (out, lse, dq, dk, dv), expected, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name)
    assert "query_start=0, first_row=0" in repr(longnet._core.ops.dilated_attention)


WRONG = [
    ({"query_start": -1}, longnet.ConfigError, "query_start -1 with 20 rows .* 30 .* 0 to 10"),
    ({"query_start": 11}, longnet.ConfigError, "query_start 11 with 20 rows .* 30 .* 0 to 10"),
    ({"query_start": 2**63 - 1}, longnet.ConfigError, "query_start 9223372036854775807 with"),
    ({"query_start": 2**63}, longnet.ConfigError, "query_start: 9223372036854775808, expected"),
    ({"query_start": 0.5}, TypeError, "query_start: 0.5, expected an integer"),
    ({"query_start": None}, longnet.ShapeError, r"k: shape \(1, 30, .* expected \(1, 20, "),
    ({}, longnet.ShapeError, r"k: shape \(1, 30, .* expected \(1, 20, "),
    ({"lengths": np.array([31])}, longnet.ConfigError, "31, expected 0 to 30"),
    ({"cu_seqlens": np.array([0, 20])}, longnet.ConfigError, "0 to 20, .* 0 to 30"),
    ({"dropout_origin": (0,)}, longnet.ConfigError, "1 numbers, expected 2: .row, level."),
    ({"dropout_origin": (0, 1, 2)}, longnet.ConfigError, "3 numbers, expected 2"),
    ({"dropout_origin": 3}, TypeError, "dropout_origin: 3, expected a sequence"),
    ({"dropout_origin": (0, "1")}, TypeError, "dropout_origin: '1', expected an integer"),
    ({"dropout_origin": (-1, 0)}, longnet.ConfigError, "first row -1 .* expected 0 to"),
    ({"dropout_origin": (2**63 - 30, 0)}, longnet.ConfigError, f"0 to {2**63 - 31}"),
    ({"dropout_origin": (0, -1)}, longnet.ConfigError, "first level -1 .* 2 levels, .* 0 to 62"),
    ({"dropout_origin": (0, 63)}, longnet.ConfigError, "first level 63 .* 2 levels, .* 0 to 62"),
]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_bad_values(rng, options, error, message, backward):
    q = np.zeros((1, 20, 4, 16), np.float32)
    k = np.zeros((1, 30, 2, 16), np.float32)
    attention = longnet.DilatedAttention(**asdict(PATTERN))
    if set(options) - {"query_start"}:
        options = {"query_start": 0} | options
    call, inputs = attention.forward, (q, k, k)
    if backward:
        call, inputs = attention.backward, (q, q, k, k, q, np.zeros((1, 4, 20), np.float32))
    with pytest.raises(error, match=message) as raised:
        call(*inputs, **options)
    assert "\n" not in str(raised.value)


def test_bad_shapes():
    q, k = np.zeros((1, 20, 4, 16), np.float32), np.zeros((1, 30, 4, 16), np.float32)
    attention = longnet.DilatedAttention([8], [1])
    with pytest.raises(longnet.ShapeError, match=r"k: shape \(1, 20, .* expected \(1, 30, "):
        attention.forward(k, q, q, query_start=0)
    with pytest.raises(longnet.ShapeError, match=r"out: shape \(1, 30, .* expected \(1, 20, "):
        attention.backward(q, q, k, k, k, np.zeros((1, 4, 20), np.float32), query_start=3)
    with pytest.raises(longnet.ShapeError, match=r"lse: shape \(1, 4, 30\), expected \(1, 4, 20\)"):
        attention.backward(q, q, k, k, q, np.zeros((1, 4, 30), np.float32), query_start=3)
