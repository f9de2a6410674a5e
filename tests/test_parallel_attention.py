"""Dilated attention of one sequence over many ranks, against the naive reference and one call."""

from dataclasses import asdict, replace
from functools import cache

import ml_dtypes
import numpy as np
import pytest
from attention_cases import NAMES, Case, random_case, relative_error
from parallel_cases import on_shards, random_shards, results, sharded
from reference.dilated_attention import Pattern

import longnet
from longnet import Tensor, parallel
from longnet import functional as F
from longnet.autograd import Variable

CONFIGURATIONS = 80
RANKS = 1, 2, 3, 4, 8
LONG = Pattern((20, 50, 100, 150), (1, 2, 4, 6))  # the paper's shape, small; 6 divides nothing


@cache
def random_expected(seed):
    return random_case(seed).expected()


def make_case(rng, pattern, n, heads=4, kv_heads=2, batch=1, dtype=np.float32, **options):
    shapes = [(batch, n, h, 32) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return Case(pattern, *arrays, options)


def plan_pattern(case, shards):
    """What the plan is made of."""
    lengths, cu_seqlens = (case.options.get(name) for name in ("lengths", "cu_seqlens"))
    return parallel.Pattern(
        levels=tuple(case.pattern.levels),
        causal=case.pattern.causal,
        zero_keys=case.pattern.zero_keys,
        offsets=case.pattern.offsets,
        dropout=case.pattern.dropout > 0,
        heads=case.q.shape[2],
        shards=shards,
        lengths=None if lengths is None else tuple(lengths.tolist()),
        cu_seqlens=None if cu_seqlens is None else tuple(cu_seqlens.tolist()),
    )


@pytest.mark.parametrize("ranks", RANKS)
def test_random_configurations(ranks):
    """Any w, r, heads and options, any shards: what one call gives, and no byte uncounted."""
    wrong = []
    for seed in range(CONFIGURATIONS):
        case = random_case(seed)
        shards = random_shards(np.random.default_rng([ranks, seed]), case.q.shape[1], ranks)
        computed, received = sharded(case, shards)
        errors = case.errors(computed, random_expected(seed))
        if not max(errors.values()) <= 1e-5:
            wrong.append(f"{seed}: {shards} {case} {errors}")
        sizes = {"batch": case.q.shape[0], "head_dim": case.q.shape[3], "itemsize": 4}
        for rank in range(ranks):
            plan = parallel.make_plan(plan_pattern(case, shards), rank)
            expected = tuple(
                parallel.bytes_received(plan, **sizes, gradients=backward)
                for backward in (False, True)
            )
            assert received[rank] == expected, f"{seed}: {shards} {case}, rank {rank}"
    assert not wrong, "\n".join([f"{len(wrong)} configurations", *wrong[:10]])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("offsets", ["interleaved", "grouped"])
@pytest.mark.parametrize("gradient", ["exact", "detached"])
def test_long_levels(rng, causal, offsets, gradient):
    """Levels shorter and longer than a shard, two of them across all ranks."""
    pattern = replace(LONG, causal=causal, offsets=offsets, gradient=gradient)
    case = make_case(rng, pattern, 191, batch=2)
    expected = case.expected()
    for shards in ((48, 48, 48, 47), (1, 110, 0, 80)):
        computed, _ = sharded(case, shards)
        assert max(case.errors(computed, expected).values()) <= 1e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gradient", ["exact", "detached"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, gradient, causal):
    """At most twice the dtype's own error, at the worst element of the output and of each gradient,
    against float64 on the same inputs. The own error is that of the worst element of one call on
    the whole sequence, or half of the last place of the largest element where that is more."""
    pattern = replace(LONG, gradient=gradient, causal=causal)
    for seed, ranks in enumerate((3, 8, 4, 8)):
        rng = np.random.default_rng([seed, causal])
        case = make_case(rng, pattern, 190, dtype=dtype)
        exact, single = case.expected(), case.computed()
        computed, _ = sharded(case, random_shards(rng, 190, ranks))
        for name, x, y, z in zip(NAMES, computed, single, exact, strict=True):
            assert x.dtype == y.dtype, name
            if name == "lse":
                assert relative_error(x, z) < 1e-5
            else:
                own = max(worst(y, z), half_of_last_place(z, dtype))
                assert worst(x, z) <= 2 * own, (seed, name)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("zero_keys", [True, False])
def test_rows_past_lengths_are_not_looked_at(rng, causal, zero_keys):
    pattern = replace(LONG, causal=causal, zero_keys=zero_keys)
    case = make_case(rng, pattern, 330, batch=2, lengths=np.array([303, 120]))
    clean = case.computed()
    for x in (case.q, case.k, case.v, case.dout):
        x[0, 303:] = x[1, 120:] = np.nan
    computed, _ = sharded(case, (100, 50, 180))
    for name, x, y in zip(NAMES, computed, clean, strict=True):
        assert relative_error(x, y) <= 1e-5, name


def worst(x, exact):
    return float(np.abs(x.astype(np.float64) - exact).max())


def half_of_last_place(x, dtype):
    """Of the largest element: how far rounding moves it at most."""
    _, exponent = np.frexp(np.abs(x).max())
    return 2.0**exponent * float(ml_dtypes.finfo(dtype).eps) / 4


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"zero_keys": True, "causal": False}])
def test_same_bits_every_time(rng, options):
    pattern = replace(LONG, **options)
    case = make_case(rng, pattern, 300, seed=9)
    runs = [sharded(case, (100, 120, 80))[0] for _ in range(3)]
    for run in runs[1:]:
        for name, first, other in zip(NAMES, runs[0], run, strict=True):
            assert first.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("causal", [True, False])
def test_on_the_tape(rng, causal):
    """Gradients of the op, whose keys do not travel a second time."""
    pattern = replace(LONG, causal=causal)
    case, shards = make_case(rng, pattern, 260), (70, 100, 90)
    attention = longnet.DilatedAttention(**asdict(pattern))

    def call(comm, rows):
        q, k, v = (
            Variable(Tensor(np.ascontiguousarray(x[:, rows])), requires_grad=True)
            for x in (case.q, case.k, case.v)
        )
        out = F.dilated_attention(q, k, v, attention, comm=comm)
        received = comm.bytes_received
        out.backward(Tensor(np.ascontiguousarray(case.dout[:, rows])))
        arrays = (out.data.numpy(), *(x.grad.numpy() for x in (q, k, v)))
        return arrays, comm.bytes_received - received

    ranks = results(on_shards(call, shards))
    expected = case.expected()
    for i, name in enumerate(("out", "dq", "dk", "dv")):
        found = np.concatenate([arrays[i] for arrays, _ in ranks], axis=1)
        assert relative_error(found, expected[NAMES.index(name)]) <= 1e-5, name
    for rank, (_, received) in enumerate(ranks):
        plan = parallel.make_plan(plan_pattern(case, shards), rank)
        sizes = {"batch": 1, "head_dim": 32, "itemsize": 4}
        assert received == parallel.bytes_received(plan, **sizes, keys=False, gradients=True)


@pytest.mark.parametrize("rows", [9, 11])
def test_one_of_the_ranks_is_wrong(rng, rows):
    """Every rank is told before anything is sent."""
    case = make_case(rng, LONG, 40)

    def call(comm, shard):
        q, k, v = (np.ascontiguousarray(x[:, shard]) for x in (case.q, case.k, case.v))
        if comm.rank == 1:
            k = v = case.k[:, :rows]
        with pytest.raises(longnet.LongNetError) as raised:
            longnet.DilatedAttention([64], [1]).forward(q, k, v, comm=comm)
        assert comm.bytes_sent == comm.bytes_received == 0
        return type(raised.value), str(raised.value)

    first, second, third = results(on_shards(call, (20, 10, 10)))
    assert second[0] is longnet.ShapeError
    assert first == third
    assert first[0] is longnet.ConfigError
    assert f"rank 1: {second[1]}" in first[1]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("attention", {"causal": False}),
        ("seed", {"seed": 8}),
        ("head dim", {"dim": 16}),
        ("dtype", {"dtype": np.float16}),
        ("lengths", {"lengths": [39]}),
        ("key/value heads", {"kv_heads": 1}),
    ],
)
def test_ranks_differ(rng, what, change):
    def call(comm, rows):
        mine = change if comm.rank == 1 else {}
        dim, dtype = mine.get("dim", 32), mine.get("dtype", np.float32)
        q = np.zeros((1, 20, 2, dim), dtype)
        k = np.zeros((1, 20, mine.get("kv_heads", 2), dim), dtype)
        attention = longnet.DilatedAttention([64], [1], mine.get("causal", True), dropout=0.1)
        options = {"lengths": mine.get("lengths", [40]), "seed": mine.get("seed", 7)}
        with pytest.raises(longnet.ConfigError, match=what) as raised:
            attention.forward(q, k, k, comm=comm, **options)
        assert comm.bytes_sent == comm.bytes_received == 0
        return str(raised.value)

    for message in results(on_shards(call, (20, 20))):
        assert "rank" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [41]}, r"lengths\[0\] is 41, expected 0 to 40"),
        ({"lengths": [1, 2]}, "2 lengths, expected 1"),
        ({"lengths": [1.5]}, "lengths: float64 of shape"),
        ({"cu_seqlens": [0, 20]}, "cu_seqlens from 0 to 20"),
        ({"cu_seqlens": [0, 30, 20, 40]}, "numbers that do not fall"),
        ({"cu_seqlens": [0, 40], "lengths": [40]}, "both lengths and cu_seqlens"),
    ],
)
def test_rows_of_the_whole_sequence(options, message):
    """`lengths` and `cu_seqlens` speak of all shards together."""

    def call(comm, rows):
        q = np.zeros((1, 20, 2, 16), np.float32)
        with pytest.raises(longnet.ConfigError, match=message):
            longnet.DilatedAttention([8], [1]).forward(q, q, q, comm=comm, **options)

    results(on_shards(call, (20, 20)))


def test_tensors_give_tensors(rng):
    q = rng.standard_normal((1, 20, 2, 16), dtype=np.float32)

    def call(comm, rows):
        out, lse = longnet.DilatedAttention([40], [1]).forward(Tensor(q), q, q, comm=comm)
        assert isinstance(out, Tensor)
        assert isinstance(lse, Tensor)

    results(on_shards(call, (20, 20)))


def test_options_that_do_not_fit(rng):
    case = make_case(rng, LONG, 20)
    attention = longnet.DilatedAttention(**asdict(case.pattern))
    with pytest.raises(longnet.ConfigError, match="query_start: found 3 with comm, expected"):
        attention.forward(case.q, case.k, case.v, comm=4, query_start=3)
    with pytest.raises(TypeError, match=r"forward: comm: found 4, expected a longnet.Communicator"):
        attention.forward(case.q, case.k, case.v, comm=4)
