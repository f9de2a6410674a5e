"""The caches of a sliding window and of the fixed pattern against passes over all rows."""

import re

import numpy as np
import pytest
from gradients import back, put
from ops import Call

import longnet
from longnet import functional as F
from longnet.autograd import Variable
from longnet.mixers.cache import SlidingCache, SparseCache

HEADS, KV_HEADS, D = 6, 2, 16
SLIDING = [(1,), (2,), (7,), (16,), (200,)]
SPARSE = [(1, 1), (8, 3), (7, 7), (16, 2), (200, 5)]
CASES = [*(("sliding", size) for size in SLIDING), *(("sparse", size) for size in SPARSE)]


def make(name, size, batch=1, dtype="float32"):
    options = {
        "kv_heads": KV_HEADS,
        "head_dim": D,
        "batch": batch,
        "dtype": dtype,
        "device": Call.device,
    }
    if name == "sliding":
        return SlidingCache(*size, **options)
    return SparseCache(*size, num_heads=HEADS, **options)


def whole(name, size, arrays):
    attend = {"sliding": F.sliding_attention, "sparse": F.fixed_attention}[name]
    return back(attend(*(Variable(put(x)) for x in arrays), *size).data)


def random_rows(rng, n, batch=1):
    shapes = [(batch, n, h, D) for h in (HEADS, KV_HEADS, KV_HEADS)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def attend(cache, arrays, **options):
    return back(cache.attend(*(put(np.ascontiguousarray(x)) for x in arrays), **options))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_pieces_and_single_rows_are_the_whole(rng, device, name, size):
    N = 150
    arrays = random_rows(rng, N)
    expected = whole(name, size, arrays)
    for sizes in (np.ones(N, int), rng.choice([1, 1, 2, 5, 17, 40], N)):
        cache, found, at = make(name, size), [], 0
        for n in sizes[np.cumsum(sizes) <= N]:
            found.append(attend(cache, (x[:, at : at + n] for x in arrays)))
            at += n
        assert cache.seen == [at]
        np.testing.assert_allclose(np.concatenate(found, 1), expected[:, :at], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_sequences_of_different_lengths(rng, device, name, size):
    B, N = 3, 80
    arrays = random_rows(rng, N, B)
    expected = whole(name, size, arrays)
    cache = make(name, size, B)
    while min(cache.seen) < N:
        n, before = int(rng.choice([1, 1, 1, 3, 11])), cache.seen
        counts = [int(rng.integers(0, min(n, N - seen) + 1)) for seen in before]
        padded = [np.full((B, n, *x.shape[2:]), 7.0, np.float32) for x in arrays]
        for b, (at, count) in enumerate(zip(before, counts, strict=True)):
            for x, pad in zip(arrays, padded, strict=True):
                pad[b, :count] = x[b, at : at + count]
        found = attend(cache, padded, counts=counts)
        for b, (at, count) in enumerate(zip(before, counts, strict=True)):
            y = expected[b, at : at + count]
            np.testing.assert_allclose(found[b, :count], y, rtol=0, atol=2e-6)
            assert not found[b, count:].any()


def test_a_window_s_bytes_do_not_grow(rng, device):
    cache, expected = make("sliding", (16,), 2), 2 * 2 * KV_HEADS * 16 * D * 4
    assert cache.nbytes == expected
    attend(cache, random_rows(rng, 40, 2))
    before = longnet.memory_stats(device)["bytes"]
    for _ in range(5):
        attend(cache, random_rows(rng, 37, 2))
        attend(cache, random_rows(rng, 1, 2))
    assert cache.nbytes == expected
    assert longnet.memory_stats(device)["bytes"] - before < 4096


def test_the_fixed_pattern_s_bytes_grow_with_its_blocks(rng, device):
    """Room for the columns of 1, 2, 4, 8, ... blocks."""
    cache = make("sparse", (8, 3), 2)
    for n, room in ((8, 1), (1, 2), (7, 2), (1, 4), (20, 8), (27, 8), (1, 16)):
        attend(cache, random_rows(rng, n, 2))
        assert cache.nbytes == 2 * 2 * D * 4 * (KV_HEADS * 8 + HEADS * 3 * room)


@pytest.mark.parametrize(("name", "size"), [("sliding", (7,)), ("sparse", (8, 3))])
def test_what_a_cache_held_can_be_restored(rng, name, size):
    arrays = random_rows(rng, 60, 2)
    one, other = (make(name, size, 2) for _ in range(2))
    attend(one, [x[:, :50] for x in arrays], counts=[50, 33])
    other.restore(one.seen, one.state())
    rest = [x[:, 50:] for x in arrays]
    np.testing.assert_array_equal(attend(one, rest), attend(other, rest))
    assert other.seen == [60, 43]
    state = one.state()
    with pytest.raises(longnet.ShapeError, match=r"values: found shape \(3,\), expected"):
        other.restore(one.seen, {**state, "values": np.zeros(3, np.float32)})
    del state["keys"]
    with pytest.raises(longnet.ShapeError, match=r"found the arrays .*, expected keys"):
        other.restore(one.seen, state)
    with pytest.raises(longnet.ShapeError, match="found 1 sequences, expected 2"):
        other.restore([1], one.state())
    assert other.seen == [60, 43]


@pytest.mark.parametrize(("name", "size"), [("sliding", (7,)), ("sparse", (8, 3))])
@pytest.mark.parametrize("counts", [[3, 1], [-1, 1], [1]])
def test_counts_that_are_refused(rng, name, size, counts):
    cache = make(name, size, 2)
    message = f"found the counts {re.escape(str(counts))}, expected 2 from 0 to 2"
    with pytest.raises(longnet.ShapeError, match=message):
        attend(cache, random_rows(rng, 2, 2), counts=counts)
    assert cache.seen == [0, 0]
