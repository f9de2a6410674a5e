"""The cache of one attention layer against one call on all rows."""

import numpy as np
import pytest

import longnet
from longnet import Tensor
from longnet.mixers.cache import UNBOUNDED, AttentionCache, CachedLevel
from longnet.mixers.cache.level import plan_step

D = 16
# r that divides w and r that does not; levels that leave rows of some heads uncovered
LEVELS = [
    ((8, 16, 48), (1, 2, 4)),
    ((7, 20, 33), (1, 3, 5)),
    ((5, 12), (2, 3)),
    ((1, 9), (1, 9)),
    ((UNBOUNDED,), (1,)),
    ((6, UNBOUNDED), (1, 4)),
]
HEADS = [(4, 4), (6, 2), (5, 1)]


def make(levels, heads, offsets="interleaved", batch=1, dtype="float32", device="cpu"):
    return AttentionCache(
        *levels,
        num_heads=heads[0],
        kv_heads=heads[1],
        head_dim=D,
        offsets=offsets,
        batch=batch,
        dtype=dtype,
        device=device,
    )


def random_rows(rng, heads, N, batch=1):
    shapes = [(batch, N, h, D) for h in (heads[0], heads[1], heads[1])]
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def whole(levels, offsets, q, k, v):
    lengths = [min(w, max(q.shape[1], r)) for w, r in zip(*levels, strict=True)]
    return longnet.DilatedAttention(lengths, levels[1], offsets=offsets).forward(q, k, v)[0]


def pieces(rng, N):
    """Sizes that add up to N, many of them 1."""
    while N:
        n = min(N, int(rng.choice([1, 1, 2, 5, 17, 40])))
        yield n
        N -= n


def attend(cache, arrays, **options):
    """What the cache says of NumPy arrays, on its device."""
    tensors = (Tensor(np.ascontiguousarray(x)).to(cache.rows.keys.device) for x in arrays)
    return np.asarray(cache.attend(*tensors, **options).to("cpu")).astype(np.float32)


@pytest.mark.parametrize("offsets", ["interleaved", "grouped"])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("levels", LEVELS)
def test_pieces_and_single_rows_are_the_whole(rng, device, levels, heads, offsets):
    N = 150
    q, k, v = random_rows(rng, heads, N)
    expected = whole(levels, offsets, q, k, v)
    for sizes in ([1] * N, list(pieces(rng, N)), list(pieces(rng, N))):
        cache, found, at = make(levels, heads, offsets, device=device), [], 0
        for n in sizes:
            found.append(attend(cache, (x[:, at : at + n] for x in (q, k, v))))
            at += n
        np.testing.assert_allclose(np.concatenate(found, 1), expected, rtol=0, atol=2e-6)
        assert cache.seen == [N]


@pytest.mark.parametrize("heads", HEADS)
def test_sequences_of_different_lengths(rng, device, heads):
    """Each has as many rows of a call as `counts` says, none included, and is as it is alone."""
    levels, B, N = LEVELS[1], 3, 120
    q, k, v = random_rows(rng, heads, N, B)
    expected = whole(levels, "grouped", q, k, v)
    cache = make(levels, heads, "grouped", batch=B, device=device)
    while min(cache.seen) < N:
        n = int(rng.choice([1, 1, 1, 3, 11]))
        counts = [int(rng.integers(0, min(n, N - seen) + 1)) for seen in cache.seen]
        before, padded = (
            list(cache.seen),
            [np.full((B, n, *x.shape[2:]), 7.0, np.float32) for x in (q, k, v)],
        )
        for b, (at, count) in enumerate(zip(before, counts, strict=True)):
            for x, pad in zip((q, k, v), padded, strict=True):
                pad[b, :count] = x[b, at : at + count]
        found = attend(cache, padded, counts=counts)
        for b, (at, count) in enumerate(zip(before, counts, strict=True)):
            np.testing.assert_allclose(
                found[b, :count], expected[b, at : at + count], rtol=0, atol=2e-6
            )
            assert not found[b, count:].any()
        assert cache.seen == [a + count for a, count in zip(before, counts, strict=True)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2**-10), ("bfloat16", 2**-7)])
def test_narrow_dtypes(rng, device, dtype, tolerance):
    N, heads, levels = 90, (6, 2), LEVELS[0]
    arrays = [x.astype(dtype) for x in random_rows(rng, heads, N)]
    expected = whole(levels, "interleaved", *(x.astype(np.float32) for x in arrays))
    cache, found, at = make(levels, heads, dtype=dtype, device=device), [], 0
    for n in pieces(rng, N):
        piece = [np.concatenate([x[:, at : at + n], x[:, :1]], 1) for x in arrays]
        found.append(attend(cache, piece, counts=[n])[:, :n])
        at += n
    error = np.abs(np.concatenate(found, 1) - expected).max()
    assert error < tolerance * np.abs(expected).max()


def test_a_segment_that_never_ends_gets_more_rows(rng, device):
    N, heads, levels = 2600, (2, 1), ((UNBOUNDED,), (1,))
    arrays = random_rows(rng, heads, N)
    expected = whole(levels, "interleaved", *arrays)
    cache, found, sizes = make(levels, heads, device=device), [], set()
    for at, n in ((0, 1000), (1000, 30), (1030, 1), (1031, 1569)):
        found.append(attend(cache, [x[:, at : at + n] for x in arrays]))
        sizes.add(cache.nbytes)
    np.testing.assert_allclose(np.concatenate(found, 1), expected, rtol=0, atol=2e-6)
    assert sizes == {2 * rows * D * 4 for rows in (1024, 2048, 4096)}  # of one key head


@pytest.mark.parametrize(
    ("heads", "offsets", "matrices"),
    [
        ((12, 12), "interleaved", (12, 12, 12)),
        ((12, 12), "grouped", (12, 12, 12)),
        ((12, 3), "interleaved", (3, 12, 12)),  # r = 1: the 4 heads of a key head read the same
        ((12, 3), "grouped", (3, 6, 12)),  # r = 2: 6 heads with one offset, of them 2 or 4 a key
        ((12, 1), "grouped", (1, 2, 4)),
    ],
)
def test_bytes_are_those_of_the_formula(rng, device, heads, offsets, matrices):
    levels, B = ((40, 64, 130), (1, 2, 4)), 2
    plan_step.cache_clear()  # has small tensors of steps
    before = longnet.memory_stats(device)["bytes"]
    cache = make(levels, heads, offsets, batch=B, device=device)
    expected = (
        2 * B * D * 4 * sum(m * -(-w // r) for m, w, r in zip(matrices, *levels, strict=True))
    )
    assert cache.nbytes == expected
    for _ in range(7):
        attend(cache, random_rows(rng, heads, 37, B))
        attend(cache, random_rows(rng, heads, 1, B))
    assert cache.nbytes == expected
    plan_step.cache_clear()
    assert expected <= longnet.memory_stats(device)["bytes"] - before < expected + 4096


def test_what_a_cache_held_can_be_restored(rng):
    levels, heads = LEVELS[1], (4, 2)
    arrays = random_rows(rng, heads, 60, 2)
    one, other = (make(levels, heads, batch=2) for _ in range(2))
    attend(one, [x[:, :50] for x in arrays], counts=[50, 33])
    other.restore(one.seen, one.state())
    rest = [x[:, 50:51] for x in arrays]
    np.testing.assert_array_equal(attend(one, rest), attend(other, rest))
    assert other.seen == [51, 34]
    for state, message in (
        ({"keys": one.state()["keys"]}, "found the arrays .* expected keys and values"),
        (make(LEVELS[0], heads, batch=2).state(), r"keys: found shape .* expected"),
    ):
        with pytest.raises(longnet.ShapeError, match=message):
            other.restore([1, 1], state)
    with pytest.raises(longnet.ShapeError, match="found 1 sequences, expected 2"):
        other.restore([1], one.state())


def test_batches_that_do_not_fit_are_refused(rng):
    with pytest.raises(longnet.ShapeError, match="a batch of 0, expected at least 1"):
        make(LEVELS[0], (2, 2), batch=0)
    with pytest.raises(longnet.ShapeError, match="a batch of 2, expected 3"):
        attend(make(LEVELS[0], (2, 2), batch=3), random_rows(rng, (2, 2), 4, 2))


def test_heads_that_share_rows():
    def level(rate, heads, kv_heads, rule):
        made = CachedLevel.make(16, rate, heads, kv_heads, rule)
        return made.share, made.offsets

    assert level(3, 6, 2, "interleaved") == (1, (0, 1, 2, 0, 1, 2))
    assert level(1, 6, 2, "interleaved") == (3, (0, 0))
    assert level(3, 8, 2, "grouped") == (1, (0, 0, 0, 1, 1, 1, 2, 2))
    assert level(2, 8, 2, "grouped") == (4, (0, 1))
    assert level(4, 8, 2, "grouped") == (2, (0, 1, 2, 3))
