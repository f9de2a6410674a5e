"""LongNet on sequences that ranks share, against one device: logits, loss and every gradient."""

import numpy as np
import pytest
from parallel_cases import on_shards, results
from ranks import run_threads
from reference import longnet as reference
from test_model import TINY, VARIANTS, backward, make, weights64

import longnet
from longnet import block as block_module
from longnet import random
from longnet import recompute as recompute_module
from longnet.autograd import no_grad
from longnet.model import IGNORE_INDEX, RECOMPUTE

N = 37
SHARDS = [(37,), (20, 17), (5, 31, 1), (16, 8, 0, 13)]


@pytest.fixture
def batch(rng):
    tokens = rng.integers(0, TINY["vocab_size"], (2, N + 1)).astype(np.int32)
    return tokens[:, :-1], tokens[:, 1:]


def shared(options, batch, shards, seed=None, **arguments):
    """Loss and gradients, each the sum over ranks, of a model on every rank."""

    def call(comm, rows):
        model = make(**options)
        tokens, targets = (np.ascontiguousarray(x[:, rows]) for x in batch)
        with random.use(random.RandomState(seed or 0, stream=comm.rank)):
            return backward(model, tokens, targets, comm=comm, **arguments)

    ranks = results(on_shards(call, shards))
    names = ranks[0][1]
    return sum(loss for loss, _ in ranks), {n: sum(found[n] for _, found in ranks) for n in names}


def assert_same(found, expected):
    """Within what the order of sums changes in float32: test_model allows it for one device."""
    assert found[0] == pytest.approx(expected[0], rel=2e-6)
    largest = max(np.abs(gradient).max() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        error = np.abs(found[1][name] - gradient).max()
        assert error <= 5e-6 * np.abs(gradient).max() + 1e-7 * largest, name


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_loss_and_gradients(batch, variant, shards):
    expected = backward(make(**VARIANTS[variant]), *batch)
    assert_same(shared(VARIANTS[variant], batch, shards), expected)


@pytest.mark.parametrize("variant", ["paper", "llama", "dense"])
def test_logits(batch, variant):
    """At most twice the error of one device against float64."""
    model = make(**VARIANTS[variant])
    expected = reference.logits(model.config, weights64(model), batch[0])
    alone = np.abs(model.logits(batch[0]).data.numpy() - expected).max()

    def call(comm, rows):
        with no_grad():
            tokens = np.ascontiguousarray(batch[0][:, rows])
            return make(**VARIANTS[variant]).logits(tokens, comm=comm, start=rows.start).data

    for shards in SHARDS[1:]:
        parts = [x.numpy() for x in results(on_shards(call, shards))]
        assert np.abs(np.concatenate(parts, axis=1) - expected).max() <= 2 * alone


@pytest.mark.parametrize("chunk_rows", [7, 1 << 17])
@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_recomputing(monkeypatch, batch, recompute, chunk_rows):
    for module in (block_module, recompute_module):
        monkeypatch.setattr(module, "CHUNK_ROWS", chunk_rows)
    expected = backward(make(), *batch)
    assert_same(shared({}, batch, SHARDS[2], recompute=recompute), expected)


def test_lengths(batch):
    """Of the whole sequences: one ends inside a shard, and later ranks have nothing of it."""
    lengths = np.array([9, 37])
    expected = backward(make(), *batch, lengths=lengths)
    for shards in SHARDS[1:]:
        assert_same(shared({}, batch, shards, lengths=lengths), expected)


@pytest.mark.parametrize("position", ["xpos", "rope"])
def test_documents(batch, position):
    one = [np.ascontiguousarray(x[:1]) for x in batch]
    borders = np.array([0, 4, 4, 23, 37])
    options = {"position": position}
    expected = backward(make(**options), *one, cu_seqlens=borders)
    for shards in SHARDS[1:]:
        assert_same(shared(options, one, shards, cu_seqlens=borders), expected)


def test_a_rank_whose_tokens_do_not_count(batch):
    tokens, targets = batch[0], batch[1].copy()
    targets[:, 20:] = IGNORE_INDEX
    expected = backward(make(), tokens, targets)
    for count in (None, 40):
        assert_same(shared({}, (tokens, targets), (20, 17), count=count), expected)
    half = shared({}, (tokens, targets), (20, 17), count=80)  # another 40 count elsewhere
    assert half[0] == pytest.approx(expected[0] / 2, rel=2e-6)


def test_dropout_of_attention_is_that_of_one_device(batch):
    options = {"attention_dropout": 0.4}
    with random.use(random.RandomState(6)):
        expected = backward(make(**options), *batch)
    for recompute in RECOMPUTE:
        assert_same(shared(options, batch, SHARDS[2], seed=6, recompute=recompute), expected)


def test_what_ranks_draw_does_not_depend_on_their_rows(monkeypatch, batch):
    """Masks of attention stay equal, and states alike, where ranks have unlike numbers of chunks
    to draw elementwise dropout for; elementwise masks differ."""
    for module in (block_module, recompute_module):
        monkeypatch.setattr(module, "CHUNK_ROWS", 4)
    drawn = []
    monkeypatch.setattr(
        random.RandomState, "next_seed", record(drawn, random.RandomState.next_seed)
    )
    monkeypatch.setattr(
        random.RandomState, "next_shared_seed", record(drawn, random.RandomState.next_shared_seed)
    )

    def call(comm, rows):
        model = make(dropout=0.1, attention_dropout=0.1)
        tokens, targets = (np.ascontiguousarray(x[:, rows]) for x in batch)
        state = random.RandomState(6, stream=comm.rank)
        with random.use(state):
            for _ in range(2):
                model.loss(tokens, targets, comm=comm, recompute="block").backward()
        return state.state_dict()

    states = results(on_shards(call, (30, 7)))
    assert states[0] == states[1] == {"seed": 6, "drawn": 2, "shared": 0}
    of_rank = [
        {seed for name, stream, seed in drawn if name == "next_seed" and stream == rank}
        for rank in (0, 1)
    ]
    assert len(of_rank[0]) > len(of_rank[1]) > 0
    assert not of_rank[0] & of_rank[1]


def record(drawn, method):
    def call(self):
        seed = method(self)
        drawn.append((method.__name__, self.stream, seed))
        return seed

    return call


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 19}, r"rank 1: start is 19, expected 20"),
        ({"tokens": (1, 17)}, r"rank 1: batch of 1, expected 2 as rank 0 has"),
        ({"targets": (2, 16)}, r"(rank 1: )?targets: found shape \(2, 16\), expected \(2, 17\)"),
        ({"tokens": (17,)}, r"(rank 1: )?tokens: found shape \(17,\), expected \(B, N\)"),
    ],
)
def test_ranks_that_do_not_fit(change, message):
    """Every rank is told before anything is sent."""

    def call(comm):
        mine = change if comm.rank == 1 else {}
        rows = 17 if comm.rank == 1 else 20
        tokens = np.zeros(mine.get("tokens", (2, rows)), np.int32)
        targets = np.zeros(mine.get("targets", tokens.shape), np.int32)
        with pytest.raises(longnet.LongNetError, match=message):
            make().loss(tokens, targets, comm=comm, start=mine.get("start"))
        assert comm.bytes_sent == comm.bytes_received == 0

    results(run_threads(2, call))


def test_nothing_on_any_rank(batch):
    def call(comm):
        nothing = np.zeros((1, 0), np.int32)
        with pytest.raises(longnet.ConfigError, match="0 rows on all 2 ranks, expected 1 or more"):
            make().logits(nothing, comm=comm)
        ignored = np.full((1, 3), IGNORE_INDEX, np.int32)
        with pytest.raises(longnet.DataError, match="all -100, expected one that counts"):
            make().loss(np.zeros((1, 3), np.int32), ignored, comm=comm)

    results(run_threads(2, call))


def test_rows_without_those_before(batch):
    with pytest.raises(longnet.ConfigError, match="start is 3 without comm, expected 0"):
        make().logits(batch[0], start=3)
    with pytest.raises(TypeError, match=r"comm: found 4, expected a longnet\.Communicator"):
        make().logits(batch[0], comm=4)
