"""Who computes and sends what: the plan's calls and messages against the definition, row by row."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from parallel_cases import random_shards

from longnet.parallel import Pattern, bytes_received, make_plan

CONFIGURATIONS = 300


def random_plan_pattern(seed):
    rng = np.random.default_rng([17, seed])
    n, ranks = int(rng.integers(1, 60)), int(rng.integers(1, 9))
    levels = []
    for _ in range(rng.integers(1, 4)):
        w = int(rng.integers(1, 2 * n + 1))
        levels.append((w, int(rng.integers(1, min(w, 9) + 1))))
    lengths = cu_seqlens = None
    if rng.random() < 0.3:
        lengths = tuple(rng.integers(0, n + 1, rng.integers(1, 4)).tolist())
    elif rng.random() < 0.4:
        cu_seqlens = (0, *np.sort(rng.integers(0, n + 1, rng.integers(0, 5))).tolist(), n)
    return Pattern(
        levels=tuple(levels),
        causal=bool(rng.random() < 0.5),
        zero_keys=bool(rng.random() < 0.3),
        offsets=str(rng.choice(["interleaved", "grouped"])),
        dropout=bool(rng.random() < 0.3),
        heads=int(rng.integers(1, 7)),
        shards=random_shards(rng, n, ranks),
        lengths=lengths,
        cu_seqlens=cu_seqlens,
    )


def sequences(begin, end, b, lengths, cu_seqlens):
    """Rows [first, end) of each sequence of batch item b."""
    if cu_seqlens is not None:
        return [(begin + x, begin + y) for x, y in pairwise(cu_seqlens)]
    return [(begin, begin + lengths[b] if lengths else end)]


def pairs(levels, pattern, begin, end, b, head, lengths, cu_seqlens):
    """(level, query, key) of rows [begin, end), as one call sees them."""
    found = Counter()
    for level in levels:
        w, r = pattern.levels[level]
        s = pattern.head_offsets(r)[head]
        for first, last in sequences(begin, end, b, lengths, cu_seqlens):
            for start in range(first, last, w):
                on = range(start + s, min(start + w, last), r)
                for query in on:
                    for key in on:
                        if key <= query or not pattern.causal:
                            found[level, query, key] += 1
    return found


def planned(pattern, rank, b, head):
    """The same of all that one rank computes."""
    plan, found = make_plan(pattern, rank), Counter()
    for call in plan.locals:
        rows = call.begin, call.end, b, head, call.lengths, call.cu_seqlens
        found += pairs(call.levels, pattern, *rows)
    for crossing in plan.crossings:
        if not crossing.keys:
            continue
        count = (crossing.counts * (b + 1))[b * pattern.heads + head]
        first, end = crossing.windows[rank]
        held = set()
        for source in (rank, *crossing.sources):
            a, e = crossing.windows[source]
            bounds = pattern.bounds[source : source + 2]
            rows = {m: crossing.firsts[head] + m * crossing.step for m in range(a, e)}
            held |= {m for m, row in rows.items() if bounds[0] <= row < bounds[1]}
        for m in range(first, min(end, count)):
            query = crossing.firsts[head] + m * crossing.step
            if not plan.begin <= query < plan.end:
                continue
            for key in range(min(crossing.keys, count)):
                if key <= m or not pattern.causal:
                    assert key in held, "a key that nobody sends"
                    found[crossing.level, query, crossing.firsts[head] + key * crossing.step] += 1
    return found


def test_every_pair_is_computed_once():
    for seed in range(CONFIGURATIONS):
        pattern = random_plan_pattern(seed)
        whole = 0, pattern.bounds[-1]
        for b in range(len(pattern.lengths or (0,))):
            for head in range(pattern.heads):
                levels = range(len(pattern.levels))
                rest = pattern.lengths, pattern.cu_seqlens
                expected = pairs(levels, pattern, *whole, b, head, *rest)
                found = Counter()
                for rank in range(len(pattern.shards)):
                    found += planned(pattern, rank, b, head)
                assert found == expected, f"{seed}: {pattern}, batch item {b}, head {head}"


def test_readers_and_sources_mirror_each_other():
    """What a rank sends another, that one expects, in the same order and of the same size."""
    for seed in range(CONFIGURATIONS):
        pattern = random_plan_pattern(seed)
        plans = [make_plan(pattern, rank) for rank in range(len(pattern.shards))]
        for a in plans:
            for b in plans:
                sent = [
                    (c.level, c.start, c.rows(a.rank)) for c in a.crossings if b.rank in c.readers
                ]
                expected = [
                    (c.level, c.start, c.rows(a.rank)) for c in b.crossings if a.rank in c.sources
                ]
                assert sent == expected, f"{seed}: {pattern}, {a.rank} to {b.rank}"
                assert not (sent and pattern.causal and b.rank < a.rank), "to an earlier rank"


def test_levels_within_a_shard_travel_nowhere_and_run_together():
    pattern = Pattern(((4, 1), (8, 3), (16, 2)), True, False, "interleaved", True, 4, (32, 16, 48))
    for rank in range(3):
        plan = make_plan(pattern, rank)
        assert plan.crossings == ()
        assert [call.levels for call in plan.locals] == [(0, 1, 2)]


def test_a_causal_segment_runs_locally_on_its_first_rank():
    pattern = Pattern(((4, 1), (64, 4)), True, False, "interleaved", False, 4, (16,) * 4)
    first, *others = (make_plan(pattern, rank) for rank in range(4))
    assert [call.levels for call in first.locals] == [(0, 1)]
    assert first.looking == []
    assert first.crossings[0].readers == (1, 2, 3)
    for plan in others:
        assert [call.levels for call in plan.locals] == [(0,)]
        assert plan.looking[0].sources == tuple(range(plan.rank))


def test_dropout_keeps_levels_of_one_call_consecutive():
    levels = ((4, 1), (32, 2), (8, 1))
    pattern = Pattern(levels, False, False, "interleaved", True, 2, (16, 16))
    assert [call.levels for call in make_plan(pattern, 0).locals] == [(0,), (2,)]


@pytest.mark.parametrize("causal", [True, False])
def test_bytes_of_the_published_shape(causal):
    """w = 2048 * 4^k, r = 4^k over 8 ranks of 131,072 rows: keys of w > L alone, (w - L) / r."""
    levels = tuple((2048 * 4**k, 4**k) for k in range(5))
    shard = 2**17
    pattern = Pattern(levels, causal, False, "interleaved", False, 12, (shard,) * 8)
    rows = sum((w - shard) // r for w, r in levels if w > shard)
    for rank in range(8):
        plan = make_plan(pattern, rank)
        found = bytes_received(plan, batch=1, head_dim=64, itemsize=2)
        before = sum(rank % (w // shard) * shard // r for w, r in levels if w > shard)
        expected = before if causal else rows
        assert found == 4 * 12 * 64 * expected
        back = bytes_received(plan, batch=1, head_dim=64, itemsize=2, keys=False, gradients=True)
        assert back == 8 * 12 * 64 * (rows - before if causal else rows)  # float32


def test_a_thousand_ranks():
    """One billion rows on 1,024 ranks: the plan takes no time and 30 MB arrive."""
    levels = tuple((2048 * 4**k, 4**k) for k in range(10))
    pattern = Pattern(levels, True, False, "interleaved", False, 12, (2**20,) * 1024)
    plan = make_plan(pattern, 1023)
    assert len(plan.crossings) == 5
    received = bytes_received(plan, batch=1, head_dim=64, itemsize=2)
    assert 20e6 < received < 35e6
