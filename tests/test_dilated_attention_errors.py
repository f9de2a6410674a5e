"""Bad input, memory that runs out, and Ctrl-C: one-line exceptions that name what was found."""

import re

import numpy as np
import pytest

longnet = pytest.importorskip("longnet")

from longnet import (  # noqa: E402
    ConfigError,
    DilatedAttention,
    DTypeError,
    OutOfMemoryError,
    ShapeError,
)

N, H, D = 30, 4, 16


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def assert_says(raised, *words):
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([8, 16], [1]), ["2", "1"]),
        (([], []), ["0 levels", "1 to"]),
        (([1] * 65, [1] * 65), ["65 levels", "64"]),
        (([0], [1]), ["0", "1", "segment length"]),
        (([-8], [1]), ["-8", "segment length"]),
        (([8], [0]), ["0", "dilation rate"]),
        (([8], [-2]), ["-2", "dilation rate"]),
        (([8, 8], [1, 9]), ["level 1", "8", "9"]),
    ],
)
def test_levels(arguments, words):
    with pytest.raises(ConfigError) as raised:
        DilatedAttention(*arguments)
    assert_says(raised, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offsets": "group"}, ["group", "interleaved", "grouped"]),
        ({"gradient": "none"}, ["none", "exact", "detached"]),
        ({"dropout": 1.0}, ["1", "dropout < 1"]),
        ({"dropout": -0.25}, ["-0.25", "0 <= dropout"]),
        ({"dropout": np.nan}, ["nan", "0 <= dropout"]),
        ({"scale": np.inf}, ["inf", "finite"]),
        ({"scale": np.nan}, ["nan", "finite"]),
    ],
)
def test_options(options, words):
    with pytest.raises(ConfigError) as raised:
        DilatedAttention([8], [1], **options)
    assert_says(raised, *words)


@pytest.mark.parametrize(
    "arguments",
    [([8.5], [1]), (8, 1), (["8"], [1]), ([8], [None]), ([8], [1], True, "grouped"), ([8],)],
)
def test_argument_types(arguments):
    with pytest.raises(TypeError) as raised:
        DilatedAttention(*arguments)
    assert_says(raised)


def test_integers_too_large():
    with pytest.raises(ConfigError) as raised:
        DilatedAttention([2**63], [1])
    assert_says(raised, "segment_lengths", str(2**63), "2^63 - 1")


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (([2.5], [1]), {}, ["segment_lengths", "2.5", "an integer"]),
        (([8], ["1"]), {}, ["dilation_rates", "'1'", "an integer"]),
        ((8, [1]), {}, ["segment_lengths", "8", "a sequence of integers"]),
        (([8], [1]), {"scale": "a"}, ["scale", "'a'", "a number"]),
        (([8], [1]), {"dropout": None}, ["dropout", "None", "a number"]),
        (([np.zeros((2, 2))], [1]), {}, ["segment_lengths", "array([[0., 0.],", "an integer"]),
    ],
)
def test_wrong_types_are_named(arguments, options, words):
    with pytest.raises(TypeError) as raised:
        DilatedAttention(*arguments, **options)
    assert_says(raised, *words)


def test_numpy_numbers_are_numbers():
    attention = DilatedAttention(
        np.array([8, 16]), (np.int32(1), np.uint8(2)), scale=np.float32(0.5), dropout=np.array(0.25)
    )
    assert (attention.segment_lengths, attention.dilation_rates) == ((8, 16), (1, 2))
    assert (attention.scale, attention.dropout) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(N, H, D)] * 3, ["q", "3", "(B, N, H, D)"]),
        ([(1, N, H, D), (N, H, D), (N, H, D)], ["k", "3", "(B, N, H, D)"]),
        ([(1, N, H, D), (1, N, H, D), (N, H, D)], ["v", f"({N}, {H}, {D})", f"(1, {N}, {H}, {D})"]),
        ([(1, N, H, 8)] * 3, ["8", "16 to 256"]),
        ([(1, N, H, 20)] * 3, ["20", "steps of 8"]),
        ([(1, N, H, 264)] * 3, ["264", "16 to 256"]),
        ([(1, N, 12, D), (1, N, 8, D), (1, N, 8, D)], ["k: 8 heads, q has 12: not a multiple"]),
        ([(1, N, 0, D), (1, N, 1, D), (1, N, 1, D)], ["0"]),
        ([(1, N, H, D), (1, N, 0, D), (1, N, 0, D)], ["0 heads"]),
        ([(1, N, H, D), (1, 29, H, D), (1, 29, H, D)], ["k", f"(1, 29, {H}, {D})", f"(1, {N}, "]),
        ([(2, N, H, D), (1, N, H, D), (1, N, H, D)], ["k", f"(1, {N}, {H}, {D})", "(2, "]),
        ([(1, N, H, D), (1, N, H, 24), (1, N, H, 24)], ["k", "24", "16"]),
        ([(1, N, H, D), (1, N, H, D), (1, N, 2, D)], ["v", f"(1, {N}, 2, {D})", f"(1, {N}, {H}, "]),
    ],
)
def test_shapes(shapes, words):
    with pytest.raises(ShapeError) as raised:
        DilatedAttention([8], [1]).forward(*(zeros(*shape) for shape in shapes))
    assert_says(raised, *words)


@pytest.mark.parametrize("dtype", ["f8", "i4", "i8", "u1", "c8", "O", "S4", "bool"])
def test_dtypes(dtype):
    x = np.zeros((1, N, H, D), dtype)
    with pytest.raises(DTypeError) as raised:
        DilatedAttention([8], [1]).forward(x, x, x)
    assert_says(raised, "q", "float32", "float16", "bfloat16")


def test_mixed_dtypes():
    q, half = zeros(1, N, H, D), zeros(1, N, H, D, dtype=np.float16)
    with pytest.raises(DTypeError) as raised:
        DilatedAttention([8], [1]).forward(q, half, half)
    assert_says(raised, "k", "float16", "float32")
    with pytest.raises(DTypeError) as raised:
        DilatedAttention([8], [1]).forward(q, q, half)
    assert_says(raised, "v", "float16", "float32")


@pytest.mark.parametrize("thing", [None, 3, "q", [[1.0]], object()])
def test_not_an_array(thing):
    q = zeros(1, N, H, D)
    with pytest.raises(DTypeError) as raised:
        DilatedAttention([8], [1]).forward(q, thing, q)
    assert_says(raised, "k", type(thing).__name__, "expected")


def test_unexpected_arguments():
    q, attention = zeros(1, N, H, D), DilatedAttention([8], [1])
    for call in (
        lambda: attention.forward(q, q),
        lambda: attention.forward(q, q, q, q),
        lambda: attention.forward(q, q, q, length=3),
        lambda: attention.forward(q, q, q, seed="1"),
        lambda: attention.backward(q, q, q, q, q),
        lambda: DilatedAttention([8], [1], gradients="exact"),
    ):
        with pytest.raises(TypeError) as raised:
            call()
        assert_says(raised)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_range(seed):
    q = zeros(1, N, H, D)
    with pytest.raises(ConfigError) as raised:
        DilatedAttention([8], [1], dropout=0.5).forward(q, q, q, seed=seed)
    assert_says(raised, "seed", str(seed), "0 to 2^64 - 1")


@pytest.mark.parametrize("seed", [1.5, "1", None, np.zeros((2, 2), int)])
def test_seed_type(seed):
    q = zeros(1, N, H, D)
    attention = DilatedAttention([8], [1], dropout=0.5)
    with pytest.raises(TypeError) as raised:
        attention.backward(q, q, q, q, q, zeros(1, H, N), seed=seed)
    assert_says(raised, "seed", "an integer")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lengths": np.array([N, N + 1])}, ValueError, ["lengths[1]", "31", "0 to 30"]),
        ({"lengths": np.array([-1, N])}, ValueError, ["lengths[0]", "-1", "0 to 30"]),
        ({"lengths": np.array([N])}, ShapeError, ["lengths", "(1,)", "(2,)"]),
        ({"lengths": np.array([[N, N]])}, ShapeError, ["lengths", "(1, 2)", "(2,)"]),
        ({"lengths": np.array([N, N], np.int32)}, DTypeError, ["lengths", "int32", "int64"]),
        ({"lengths": np.array([3.0, 4.0])}, DTypeError, ["lengths", "float64"]),
        ({"lengths": [N, N]}, DTypeError, ["lengths", "list"]),
        ({"cu_seqlens": np.array([0, N])}, ShapeError, ["cu_seqlens", "batch of 2", "1"]),
    ],
)
def test_lengths(options, error, words):
    q = zeros(2, N, H, D)
    with pytest.raises(error) as raised:
        DilatedAttention([8], [1]).forward(q, q, q, **options)
    assert_says(raised, *words)


@pytest.mark.parametrize(
    ("ends", "error", "words"),
    [
        (np.array([0, 20]), ValueError, ["20", "30"]),
        (np.array([0, 31]), ValueError, ["31", "30"]),
        (np.array([1, 30]), ValueError, ["1", "0 to 30"]),
        (np.array([0, 20, 10, 30]), ValueError, ["cu_seqlens[2] is 10 after 20", "0 to 30"]),
        (np.array([0, -5, 30]), ValueError, ["cu_seqlens[1] is -5 after 0", "0 to 30"]),
        (np.array(30), ShapeError, ["cu_seqlens", "()", "(S+1,)"]),
        (np.array([], np.int64), ShapeError, ["cu_seqlens", "(S+1,)"]),
        (np.array([[0, 30]]), ShapeError, ["cu_seqlens", "(S+1,)"]),
        (np.array([0, 30], np.int32), DTypeError, ["cu_seqlens", "int32", "int64"]),
    ],
)
def test_cu_seqlens(ends, error, words):
    q = zeros(1, N, H, D)
    with pytest.raises(error) as raised:
        DilatedAttention([8], [1]).forward(q, q, q, cu_seqlens=ends)
    assert_says(raised, *words)


def test_lengths_and_documents():
    q = zeros(1, N, H, D)
    options = {"lengths": np.array([N]), "cu_seqlens": np.array([0, N])}
    with pytest.raises(ValueError, match="both lengths and cu_seqlens") as raised:
        DilatedAttention([8], [1]).forward(q, q, q, **options)
    assert_says(raised)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"dout": zeros(1, N, 2, D)}, ShapeError, ["dout", f"(1, {N}, 2, {D})"]),
        ({"out": zeros(1, N, H, 24)}, ShapeError, ["out", f"(1, {N}, {H}, 24)"]),
        ({"lse": zeros(1, N, H)}, ShapeError, ["lse", f"(1, {N}, {H})", f"(1, {H}, {N})"]),
        ({"lse": zeros(H, N)}, ShapeError, ["lse", f"({H}, {N})", f"(1, {H}, {N})"]),
        ({"dout": zeros(1, N, H, D, dtype=np.float16)}, DTypeError, ["dout", "float16"]),
        ({"lse": zeros(1, H, N, dtype=np.float64)}, DTypeError, ["lse", "float64"]),
        ({"lse": zeros(1, H, N, dtype=np.float16)}, DTypeError, ["lse", "float16", "float32"]),
        ({"k": zeros(1, N, 3, D), "v": zeros(1, N, 3, D)}, ShapeError, ["k: 3 heads, q has 4"]),
        ({"q": zeros(N, H, D)}, ShapeError, ["q", "3", "(B, N, H, D)"]),
        ({"q": zeros()}, ShapeError, ["q", "0", "(B, N, H, D)"]),
        ({"lengths": np.array([31])}, ValueError, ["lengths[0]", "31", "0 to 30"]),
    ],
)
def test_backward(changed, error, words):
    q = zeros(1, N, H, D)
    arguments = {"dout": q, "q": q, "k": q, "v": q, "out": q, "lse": zeros(1, H, N)} | changed
    with pytest.raises(error) as raised:
        DilatedAttention([8], [1]).backward(**arguments)
    assert_says(raised, *words)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_allocation_may_fail(rng, dtype, strided):
    """Whichever allocation fails, the call raises, holds nothing, and the next one works."""
    arrays = [rng.standard_normal((1, 700, 2, 16)).astype(dtype) for _ in range(4)]
    if strided:
        arrays = [np.asfortranarray(x) for x in arrays]
    q, k, v, dout = arrays
    attention = DilatedAttention([256, 700], [1, 3], gradient="detached")
    out, lse = attention.forward(q, k, v)
    gradients = attention.backward(dout, q, k, v, out, lse)
    held = longnet.memory_stats()["bytes"]

    def assert_as_before(results, expected):
        for x, y in zip(results, expected, strict=True):
            np.testing.assert_array_equal(x, y)

    def check(call, expected):
        failures = 0
        while True:
            longnet._core.alloc_fail_at(failures + 1)
            try:
                results = call()
                break
            except OutOfMemoryError as error:
                message = str(error)
            finally:
                longnet._core.alloc_fail_at(0)
            failures += 1
            assert re.fullmatch(r".*\d+ bytes asked for, \d+ held", message)
            assert longnet.memory_stats()["bytes"] == held
            assert_as_before(call(), expected)
        assert_as_before(results, expected)
        return failures

    assert check(lambda: attention.forward(q, k, v), (out, lse)) >= 2
    assert check(lambda: attention.backward(dout, q, k, v, out, lse), gradients) >= 3


INTERRUPTED = """
import _thread, os, signal, sys, threading, time
import numpy as np, longnet
q = np.ones((1, 200_000, 2, 64), np.float32)
lse = np.full((1, 2, 200_000), 20, np.float32)
attention = longnet.DilatedAttention([200_000], [1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it was ignored
sent = []
def interrupt():
    sent.append(time.process_time())  # the processors may be busy with others' work
    os.kill(os.getpid(), signal.SIGINT)
threading.Timer(0.3, interrupt).start()
try:
    if sys.argv[1] == "forward":
        attention.forward(q, q, q)
    else:
        attention.backward(q, q, q, q, q, lse)
except KeyboardInterrupt:
    print(time.process_time() - sent[0])
small = q[:, :10]
out, _ = attention.forward(small, small, small)
assert (out == 1).all()
"""


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("call", ["forward", "backward"])
def test_ctrl_c(python, call, threads):
    """A call of more than ten seconds ends within one of the signal, and the next one works."""
    done = python("-c", INTERRUPTED, call, timeout=60, LONGNET_NUM_THREADS=threads)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0 * int(threads)
