"""A sliding window and the fixed pattern of sequences that ranks share, against one rank."""

import ml_dtypes
import numpy as np
import pytest
from parallel_cases import on_shards, random_shards, results
from ranks import run_threads

import longnet
from longnet import Tensor
from longnet import functional as F
from longnet.autograd import Variable
from longnet.recompute import checkpoint

PATTERNS = {"sliding": F.sliding_attention, "fixed": F.fixed_attention}
# Windows and blocks of less than a row more than there are, and none beside its own.
SIZES = {
    "sliding": [(1,), (2,), (6,), (17,), (60,)],
    "fixed": [(1, 1), (6, 2), (7, 3), (5, 5), (16, 3), (60, 4)],
}
CASES = [(name, size) for name, sizes in SIZES.items() for size in sizes]
N, D = 43, 16


def arrays(rng, batch, n=N, dtype=np.float32):
    heads = 4, 2, 2, 4
    return [rng.standard_normal((batch, n, h, D)).astype(dtype) for h in heads]


def run(attend, size, whole, rows=slice(None), **options):
    """Output and gradients of some rows of q, k, v and dout."""
    q, k, v, dout = (np.ascontiguousarray(x[:, rows]) for x in whole)
    inputs = [Variable(Tensor(x), requires_grad=True) for x in (q, k, v)]
    out = attend(*inputs, *size, **options)
    out.backward(Tensor(dout))
    return [x.numpy() for x in (out.data, *(x.grad for x in inputs))]


def shared(attend, size, whole, shards, **options):
    """Likewise, of ranks together."""
    parts = results(
        on_shards(lambda comm, rows: run(attend, size, whole, rows, comm=comm, **options), shards)
    )
    return [np.concatenate(found, axis=1) for found in zip(*parts, strict=True)]


def check(name, size, whole, shards, **options):
    expected = run(PATTERNS[name], size, whole, **options)
    for x, y in zip(shared(PATTERNS[name], size, whole, shards, **options), expected, strict=True):
        assert np.abs(x - y).max() <= 3e-6 * np.abs(y).max(), (size, shards)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_any_shards(rng, name, size):
    """Also of no rows, and shorter than a window: rows come from several ranks back."""
    for ranks in (1, 2, 3, 7):
        check(name, size, arrays(rng, 2), random_shards(rng, N, ranks))
    check(name, size, arrays(rng, 1), (3, 2, 0, 1, 30, 4, 3))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_lengths(rng, name, size):
    for ranks in (2, 5):
        lengths = np.array([N, 0, *rng.integers(1, N, 2)])
        check(name, size, arrays(rng, 4), random_shards(rng, N, ranks), lengths=lengths)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_documents(rng, name, size):
    for ranks in (2, 5):
        borders = np.array([0, *np.sort(rng.integers(0, N, 4)), N])
        shards = random_shards(rng, N, ranks)
        check(name, size, arrays(rng, 1), shards, cu_seqlens=borders)
    check(name, size, arrays(rng, 1), (20, 0, 23), cu_seqlens=np.array([0, 20, 20, N]))


@pytest.mark.parametrize(("name", "size"), CASES)
@pytest.mark.parametrize("sequences", [{}, {"cu_seqlens": np.array([0, 4, 9, N])}])
def test_dropout_is_that_of_one_rank(rng, name, size, sequences):
    options = {"dropout": 0.4, "seed": 2**63 + 5, **sequences}
    check(name, size, arrays(rng, 1), random_shards(rng, N, 4), **options)


@pytest.mark.parametrize(("name", "size"), [("sliding", (9,)), ("fixed", (8, 2))])
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision(rng, name, size, dtype):
    """Errors are those of one rank, but for outputs: of two parts, rounded each. The gradients of
    values, which depend on no output, are rounded once."""
    whole = arrays(rng, 1, dtype=dtype)
    expected = run(PATTERNS[name], size, [x.astype(np.float32) for x in whole])
    alone = run(PATTERNS[name], size, whole)
    found = shared(PATTERNS[name], size, whole, (5, 3, 20, 15))
    for x, one, y in zip(found, alone, expected, strict=True):
        rounding = np.abs(y.astype(dtype).astype(np.float32) - y).max()
        errors = [np.abs(z.astype(np.float32) - y).max() for z in (x, one)]
        assert errors[0] <= 1.1 * errors[1]
    assert max(errors) <= 1.1 * rounding


@pytest.mark.parametrize(("name", "size"), [("sliding", (9,)), ("fixed", (8, 2))])
def test_what_is_kept_does_not_travel_again(rng, name, size):
    """Where a checkpoint keeps attention, rows of other ranks come once, and else twice."""
    whole = arrays(rng, 1)
    expected = run(PATTERNS[name], size, whole)

    def call(comm, rows):
        def attend(*inputs, keep):
            def inside(q, k, v):
                return PATTERNS[name](q, k, v, *size, comm=comm)

            return checkpoint(inside, *inputs[:3], keep=keep)

        received, found = [0], []
        for keep in (True, False):
            found.append(run(attend, (), whole, rows, keep=keep))
            received.append(comm.bytes_received)
        return np.diff(received), found

    for rank, (received, found) in enumerate(results(on_shards(call, (20, 23)))):
        rows = slice(0, 20) if rank == 0 else slice(20, 43)
        for x, y in zip(found[0] + found[1], expected + expected, strict=True):
            np.testing.assert_allclose(x, y[:, rows], rtol=0, atol=1e-5)
        assert received[0] == (received[1] if rank == 0 else received[1] / 2) > 0


@pytest.mark.parametrize("window", [1, 5, 30])
def test_a_window_s_halo_is_what_travels(rng, window):
    """Keys and values of window - 1 rows, and their gradients on the way back."""
    shards, row = (10, 6, 20, 7), 2 * 2 * D * 4  # bytes: keys and values, Hk, D, float32
    before = np.cumsum([0, *shards])

    def call(comm, rows):
        run(F.sliding_attention, (window,), arrays(rng, 1), rows, comm=comm)
        return comm.bytes_received

    for rank, found in enumerate(results(on_shards(call, shards))):
        mine = min(before[rank], window - 1)
        end = before[rank + 1]
        others = sum(
            max(0, end - max(before[rank], before[peer] - window + 1))
            for peer in range(rank + 1, len(shards))
        )
        assert found == row * (mine + others)


def test_columns_travel_once_for_each_later_rank(rng):
    """4 heads, blocks of 5 rows of which 2 are columns; the last rank looks at 4 blocks."""
    shards = 10, 10, 5

    def call(comm, rows):
        q, k, v, _ = (Variable(Tensor(np.ascontiguousarray(x[:, rows]))) for x in whole)
        F.fixed_attention(q, k, v, 5, 2, comm=comm)
        return comm.bytes_received

    whole = arrays(rng, 1, 25)
    block = 2 * 4 * 2 * D * 4  # bytes: keys and values, H, c, D, float32
    assert results(on_shards(call, shards)) == [0, 2 * block, 4 * block]


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("sliding", [(5,), (6,)], "attention: found .* on rank 1, expected .* as on rank 0"),
        ("sliding", [(1,), (2,)], "attention: found .* on rank 1, expected .* as on rank 0"),
        ("fixed", [(6, 2), (6, 3)], "columns: found 3 on rank 1, expected 2 as on rank 0"),
        ("fixed", [(6, 2), (7, 2)], "attention: found .* on rank 1, expected .* as on rank 0"),
    ],
)
def test_ranks_that_differ(rng, name, sizes, message):
    def call(comm):
        with pytest.raises(longnet.ConfigError, match=message):
            run(PATTERNS[name], sizes[comm.rank], arrays(rng, 1, 8), comm=comm)
        assert comm.bytes_sent == 0

    results(run_threads(2, call))


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": np.array([9])}, r"lengths\[0\] is 9, expected 0 to 8"),
        ({"lengths": np.array([3, 3])}, "2 lengths, expected 1"),
        ({"cu_seqlens": np.array([0, 7])}, "cu_seqlens from 0 to 7, expected"),
        ({"cu_seqlens": np.array([0, 8]), "lengths": np.array([8])}, "both lengths and cu_seqlens"),
        ({"dropout": 1.5}, "dropout"),
    ],
)
def test_what_is_refused(rng, name, change, message):
    with pytest.raises(longnet.ConfigError, match=message):
        run(PATTERNS[name], SIZES[name][1], arrays(rng, 1, 8), **change)
    with pytest.raises(TypeError, match=r"comm: found 4, expected a longnet\.Communicator"):
        run(PATTERNS[name], SIZES[name][1], arrays(rng, 1, 8), comm=4)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: (8,)}, "k: 1 dimensions, expected 4"),
        ({0: (1, 8, 16)}, "q: 3 dimensions, expected 4"),
        ({1: (1, 8, 3, 16), 2: (1, 8, 3, 16)}, "k: 3 heads, q has 4: not a multiple"),
        ({1: (1, 9, 2, 16), 2: (1, 9, 2, 16)}, "k: 9 rows, expected 8 as q has"),
        ({2: (1, 9, 2, 16)}, "v: shape"),
    ],
)
def test_shapes_that_are_refused(rng, name, change, message):
    inputs = arrays(rng, 1, 8)[:3]
    for at, shape in change.items():
        inputs[at] = np.zeros(shape, np.float32)
    with pytest.raises(longnet.ShapeError, match=message):
        PATTERNS[name](*(Variable(Tensor(x)) for x in inputs), *SIZES[name][1])


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("sliding", (0,), "found a window of 0, expected at least 1"),
        ("fixed", (4, 0), "found 0 columns, expected 1 to 4, the block"),
        ("fixed", (4, 5), "found 5 columns, expected 1 to 4, the block"),
        ("fixed", (0, 1), "segment length 0 and dilation rate 1, expected"),
    ],
)
def test_sizes_that_are_refused(rng, name, size, message):
    """On every rank, also where one alone has them."""
    with pytest.raises(longnet.ConfigError, match=message):
        run(PATTERNS[name], size, arrays(rng, 1, 8))

    def call(comm):
        mine = size if comm.rank == 1 else SIZES[name][1]
        with pytest.raises(longnet.ConfigError, match=message):
            run(PATTERNS[name], mine, arrays(rng, 1, 8), comm=comm)

    results(run_threads(2, call))
