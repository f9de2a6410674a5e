"""Sequences that pass through a device in pieces, against the naive reference and one call."""

from dataclasses import asdict, replace
from functools import cache, partial

import ml_dtypes
import numpy as np
import pytest
from attention_cases import Case, random_case, relative_error
from parallel_cases import on_shards, random_shards, results
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

import longnet
from longnet import Tensor
from longnet.parallel import Generated, segments

CONFIGURATIONS = 30
# Levels inside a piece of 32 rows, as long as it, and longer, up to all rows; 6 divides nothing.
LONG = Pattern((16, 32, 75, 128, 400), (1, 2, 6, 8, 32))


def make_case(rng, pattern, n, heads=4, kv_heads=2, batch=1, dtype=np.float32, **options):
    shapes = [(batch, n, h, 16) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return Case(pattern, *arrays, options)


@cache
def random_expected(seed):
    return expected(random_case(seed))


def expected(case):
    return reference.forward(case.pattern, case.q, case.k, case.v, **case.options)


def attention(case):
    return longnet.DilatedAttention(**asdict(case.pattern))


def errors(case, out, lse, exact):
    """Largest errors of output and LSE, relative to the largest value."""
    assert out.dtype == case.q.dtype
    assert lse.dtype == np.float32
    return relative_error(out, exact[0]), relative_error(lse, exact[1])


def streamed(case, piece, **options):
    return attention(case).stream(case.q, case.k, case.v, piece=piece, **case.options, **options)


def on_ranks(case, shards, piece):
    """Out and LSE of all rows, each rank with pieces of a length of its own."""

    def call(comm, rows):
        inputs = (x[:, rows] for x in (case.q, case.k, case.v))
        options = {"piece": piece + comm.rank, "comm": comm, **case.options}
        return attention(case).stream(*inputs, **options)

    outs, lses = zip(*results(on_shards(call, shards)), strict=True)
    return np.concatenate(outs, axis=1), np.concatenate(lses, axis=2)


def test_random_configurations(device):
    """Any w, r, heads and options, any pieces."""
    for seed in range(CONFIGURATIONS):
        case = random_case(seed)
        exact, n = random_expected(seed), case.q.shape[1]
        for piece in {1, 1 + seed * 7 % n, n // 3 + 1, n}:
            found = streamed(case, piece, device=device)
            assert max(errors(case, *found, exact)) <= 1e-5, (seed, piece, str(case))


@pytest.mark.parametrize("few", [0, segments.FEW])
@pytest.mark.parametrize("ranks", [2, 3])
def test_random_configurations_on_ranks(monkeypatch, ranks, few):
    """What ranks share is read with all rows, and one row at a time."""
    monkeypatch.setattr(segments, "FEW", few)
    for seed in range(CONFIGURATIONS):
        case = random_case(seed)
        n = case.q.shape[1]
        shards = random_shards(np.random.default_rng([ranks, seed]), n, ranks)
        found = on_ranks(case, shards, n // 6 + 1)
        assert max(errors(case, *found, random_expected(seed))) <= 1e-5, (seed, shards, str(case))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("offsets", ["interleaved", "grouped"])
@pytest.mark.parametrize("piece", [32, 50])
def test_long_levels(rng, device, causal, offsets, piece):
    case = make_case(rng, replace(LONG, causal=causal, offsets=offsets), 450, batch=2)
    found = streamed(case, piece, device=device)
    assert max(errors(case, *found, expected(case))) <= 1e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"lengths": np.array([303])},
        {"cu_seqlens": np.array([0, 7, 7, 200, 330])},
        {"dropout": 0.3, "seed": 5},
        {"zero_keys": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_on_long_levels(rng, device, causal, options):
    calls = {name: x for name, x in options.items() if name not in ("dropout", "zero_keys")}
    changes = {name: x for name, x in options.items() if name in ("dropout", "zero_keys")}
    case = make_case(rng, replace(LONG, causal=causal, **changes), 330, **calls)
    exact = expected(case)
    assert max(errors(case, *streamed(case, 32, device=device), exact)) <= 1e-5
    assert max(errors(case, *on_ranks(case, (150, 180), 32), exact)) <= 1e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(rng, device, dtype, causal):
    """At most twice the error of rounding the exact result once."""
    case = make_case(rng, replace(LONG, causal=causal), 450, dtype=dtype)
    exact = expected(case)
    out, lse = streamed(case, 32, device=device)
    error, lse_error = errors(case, out, lse, exact)
    assert error <= 2 * relative_error(exact[0].astype(dtype), exact[0])
    assert lse_error <= 1e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_no_segment_crosses(rng, dtype, causal):
    """What the documentation promises of a CPU: the bits of one call."""
    pattern = Pattern((16, 48, 96), (1, 2, 4), causal=causal)
    case = make_case(rng, pattern, 1000, dtype=dtype)
    one = attention(case).forward(case.q, case.k, case.v)
    for piece in (96, 192, 5000):
        for x, y in zip(streamed(case, piece), one, strict=True):
            assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("causal", [True, False])
def test_memory_maps(rng, device, tmp_path, causal):
    case = make_case(rng, replace(LONG, causal=causal), 410)
    arrays = {}
    for name in "qkv":
        np.save(tmp_path / f"{name}.npy", getattr(case, name))
        arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    out, lse = (
        np.lib.format.open_memmap(tmp_path / name, "w+", np.float32, shape)
        for name, shape in (("out", case.q.shape), ("lse", (1, 4, 410)))
    )
    seen = []

    def sink(begin, rows, rows_lse):
        assert rows.device.startswith(device)
        seen.append((begin, rows.shape, rows_lse.shape))

    given = attention(case).stream(
        *arrays.values(), piece=120, out=out, lse=lse, sink=sink, device=device
    )
    assert given[0] is out
    assert given[1] is lse
    assert max(errors(case, out, lse, expected(case))) <= 1e-5
    rows = enumerate((120, 120, 120, 50))
    assert seen == [(i * 120, (1, n, 4, 16), (1, 4, n)) for i, n in rows]


def made(x, asked, device="cpu"):
    """The rows of an array as they are asked for, which is noted."""

    def make(begin, end):
        asked.append((begin, end))
        return Tensor(np.ascontiguousarray(x[:, begin:end])).to(device)

    return Generated(x.shape, str(x.dtype), make)


@pytest.mark.parametrize("causal", [True, False])
def test_rows_that_are_made(rng, device, causal):
    """Causal, every row is made once; else keys of the longer levels a second time, and the rows
    of a sparse level one by one."""
    pattern = Pattern((32, 1280), (1, 40), causal=causal)
    case = make_case(rng, pattern, 1280)
    asked = {name: [] for name in "qkv"}
    arrays = [made(getattr(case, name), asked[name], device) for name in "qkv"]
    parts = []
    nothing = attention(case).stream(
        *arrays, piece=320, sink=lambda *part: parts.append(part), device=device
    )
    assert nothing == (None, None)
    out, lse = (
        np.concatenate([part[i].to("cpu").numpy() for part in parts], axis=i) for i in (1, 2)
    )
    assert max(errors(case, out, lse, expected(case))) <= 1e-5
    pieces = [(begin, begin + 320) for begin in range(0, 1280, 320)]
    assert asked["q"] == pieces
    assert asked["k"] == asked["v"]
    single = [(row, row + 4) for row in range(0, 1280, 40)]  # those of heads 0 to 3
    assert asked["k"] == ([] if causal else single) + pieces


def test_dense_level_is_read_with_all_rows(rng):
    case = make_case(rng, Pattern((640,), (2,), causal=False), 640)
    asked = []
    found = attention(case).stream(case.q, made(case.k, asked), case.v, piece=2 * segments.FEW + 8)
    assert max(errors(case, *found, expected(case))) <= 1e-5
    assert asked == 2 * [(begin, begin + 40) for begin in range(0, 640, 40)]


def test_ranks_ask_for_what_they_share(rng):
    """A causal rank reads first what a later one needs: rows of the shared level alone."""
    case = make_case(rng, Pattern((32, 1280), (1, 40)), 1280)

    def call(comm, rows):
        asked = []
        parts = case.q[:, rows], made(case.k[:, rows], asked), case.v[:, rows]
        out, lse = attention(case).stream(*parts, piece=320, comm=comm)
        return out, lse, asked, comm.bytes_received

    first, second = results(on_shards(call, (640, 640)))
    found = (np.concatenate([first[i], second[i]], axis=i + 1) for i in (0, 1))
    assert max(errors(case, *found, expected(case))) <= 1e-5
    pieces = [(0, 320), (320, 640)]
    shared = [(row, row + 4) for row in range(0, 640, 40)]
    assert first[2] == second[2] == shared + pieces
    assert first[3] == 0
    assert second[3] == 2 * 4 * 16 * 4 * len(shared)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("piece", [128, 200])
def test_memory(rng, device, causal, piece):
    """No more than it is said to take, beside what one call on a piece takes."""
    n, dim = 6000, 32
    attention = longnet.DilatedAttention([64, 512, 4096], [1, 4, 32], causal)
    k = made(rng.standard_normal((1, n, 2, dim), dtype=np.float32), [], device)
    q = made(rng.standard_normal((1, n, 4, dim), dtype=np.float32), [], device)
    said = attention.stream_bytes(n, 4, dim, piece=piece, kv_heads=2, dtype="float32")

    def peak(call):
        before = longnet.memory_stats(device)["bytes"]
        longnet.reset_peak_memory(device)
        call()
        return longnet.memory_stats(device)["peak_bytes"] - before

    rows = [x[:, 0:piece] for x in (q, k, k)]
    call = peak(lambda: attention.forward(*rows))
    stream = partial(attention.stream, q, k, k, sink=lambda *rows: None, device=device)
    taken = peak(lambda: stream(piece=piece))
    assert said < 0.7 * 4 * n * dim * 12  # what q, k, v and the output take
    assert taken <= said + call


ERRORS = [
    ({"piece": 0}, longnet.ConfigError, "piece: found 0, expected 1 or more"),
    ({"k": (1, 9, 2, 16)}, longnet.ShapeError, r"k: found \(1, 9, 2, 16\), expected \(1, 20"),
    ({"q": (20, 2, 16)}, longnet.ShapeError, r"q: found shape \(20, 2, 16\)"),
    ({"v": (1, 20, 1, 16)}, longnet.ShapeError, "v: found"),
    ({"out": (1, 20, 2, 8)}, longnet.ShapeError, "out: found"),
    ({"lse": (1, 20, 2)}, longnet.ShapeError, "lse: found"),
    ({"k": (1, 20, 3, 16), "v": (1, 20, 3, 16)}, longnet.ShapeError, "3"),
]
ALONE = [
    ({"lengths": [21]}, longnet.ConfigError, r"lengths\[0\] is 21"),
    ({"device": "gpu"}, longnet.DeviceError, "gpu"),
]


@pytest.mark.parametrize(
    ("ranks", "changes", "error", "message"),
    [(1, *case) for case in ERRORS + ALONE] + [(2, *case) for case in ERRORS],
)
def test_errors(ranks, changes, error, message):
    """Told before anything is read; with ranks on all of them."""

    def call(comm, rows):
        arguments = {name: (1, 20, 2, 16) for name in "qkv"} | {"piece": 4}
        if comm.rank == ranks - 1:
            arguments |= changes
        for name in arguments.keys() & {"q", "k", "v", "out", "lse"}:
            arguments[name] = np.zeros(arguments[name], np.float32)
        if ranks > 1:
            arguments["comm"] = comm
        longnet.DilatedAttention([8], [1]).stream(**arguments)

    *others, wrong = on_shards(call, (20,) * ranks)
    for other in others:
        assert isinstance(other, longnet.ConfigError)
        assert f"rank {ranks - 1}: {wrong}" in str(other)
    with pytest.raises(error, match=message):
        raise wrong


def test_arrays_that_break_their_word(rng):
    q = rng.standard_normal((1, 20, 2, 16), dtype=np.float32)
    attention = longnet.DilatedAttention([8], [1])
    short = Generated(q.shape, "float32", lambda begin, end: q[:, begin : end - 1])
    with pytest.raises(longnet.ShapeError, match=r"k: rows 0 to 8 are \(1, 7, 2, 16\), expected"):
        attention.stream(q, short, q, piece=8)
    other = Generated(q.shape, "float32", lambda b, e: q[:, b:e].astype(np.float16))
    with pytest.raises(longnet.DTypeError, match="v: rows 0 to 8 are float16, expected float32"):
        attention.stream(q, q, other, piece=8)
