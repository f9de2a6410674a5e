"""Gradients of a model that leave for the sum over ranks while the backward pass goes on."""

import numpy as np
import pytest
from ranks import returned, run_threads

import longnet
from longnet import Config, LongNet, Tensor, recompute
from longnet.optim import AdamW, buckets

TINY = Config(
    vocab_size=11,
    num_layers=2,
    embed_dim=32,
    num_heads=2,
    ffn_dim=40,
    segment_lengths=(4, 8),
    dilation_rates=(1, 3),
    xpos_scale_base=16.0,
    dropout=0.0,
    attention_dropout=0.0,
)
VARIANTS = [
    {},
    {"recompute": "block"},
    {"recompute": "attention-kept", "tie_embeddings": True},
    {"tie_embeddings": True, "dtype": "bfloat16"},
]
ACCUMULATE, STEPS = 2, 3


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 8192)


def make(tie_embeddings=False, dtype="float32", **options):
    config = Config.from_dict(TINY.to_dict() | {"tie_embeddings": tie_embeddings})
    model = LongNet(config, seed=1, dtype=dtype)

    def loss(rank, step, pass_):
        rng = np.random.default_rng((rank, step, pass_))
        tokens, targets = rng.integers(0, 11, (2, 1, 19), dtype=np.int32)
        return model.loss(tokens, targets, chunk=8, **options)

    return model, loss


def weights(model):
    return {name: p.data.numpy().copy() for name, p in model.named_parameters()}


def alone(size, **variant):
    """One device, with the sums of the gradients that `size` ranks have."""
    model, loss = make(**variant)
    optimizer = AdamW(model.parameters(), dtype=variant.get("dtype", "float32"))
    for step in range(STEPS):
        sums = {}
        for rank in range(size):
            optimizer.zero_grad()
            for pass_ in range(ACCUMULATE):
                loss(rank, step, pass_).backward()
            for p in optimizer.parameters:
                g = p.grad.numpy()
                sums[p] = sums[p] + g if p in sums else g.copy()
        for p, g in sums.items():
            p.grad = Tensor(g)
        optimizer.step(0.01)
    return weights(model)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1, 3])
def test_a_model(size, variant, monkeypatch):
    monkeypatch.setattr(recompute, "CHUNK_ROWS", 5)
    expected = alone(size, **variant)

    def rank(comm):
        model, loss = make(**variant)
        optimizer = AdamW(model.parameters(), dtype=variant.get("dtype", "float32"), comm=comm)
        for step in range(STEPS):
            optimizer.zero_grad()
            loss(comm.rank, step, 0).backward()
            last = loss(comm.rank, step, 1)
            with optimizer.gradients_final():
                last.backward()
            optimizer.step(0.01)
        return weights(model)

    for found in returned(run_threads(size, rank)):
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_buckets_leave_early_and_in_one_order(variant, monkeypatch):
    diary = []
    send, store = buckets.Bucket.send_gradients, buckets._Place.store

    def sending(bucket):
        diary.append(bucket)
        return send(bucket)

    def storing(place, gradient):
        diary.append(place.name)
        return store(place, gradient)

    monkeypatch.setattr(buckets.Bucket, "send_gradients", sending)
    monkeypatch.setattr(buckets._Place, "store", storing)

    def rank(comm):
        model, loss = make(**variant)
        optimizer = AdamW(model.parameters(), comm=comm)
        diary.clear()
        with optimizer.gradients_final():
            loss(0, 0, 0).backward()
            done = len(diary)
        return diary[:done], diary[done:], buckets.group(optimizer.parameters)

    ((during, after, groups),) = returned(run_threads(1, rank))
    assert len(groups) > 5
    assert not after
    left = [each for each in during if not isinstance(each, str)]
    assert [bucket.parameters for bucket in left] == groups
    for i, each in enumerate(during):
        if each in left:  # and had all gradients of its parameters
            assert {p.name for p in each.parameters} <= set(during[:i])
    first = during.index(left[0])
    # What is tied is final last of all, and holds back only the bucket that it is in, the last one.
    assert len([each for each in during[first:] if isinstance(each, str)]) > 10


def test_gradients_that_come_too_late():
    def rank(comm):
        model, loss = make()
        optimizer = AdamW(model.parameters(), comm=comm)
        with optimizer.gradients_final():
            loss(0, 0, 0).backward()
        with pytest.raises(longnet.LongNetError, match=r"output: found a gradient after .* summed"):
            loss(0, 0, 1).backward()
        with (
            pytest.raises(longnet.LongNetError, match=r"gradients_final: .* expected zero_grad"),
            optimizer.gradients_final(),
        ):
            pass
        optimizer.step(0.1)
        model.zero_grad()  # it is the optimizer that must know
        with pytest.raises(longnet.LongNetError, match=r"output: found a gradient after .* summed"):
            loss(0, 0, 1).backward()
        optimizer.zero_grad()
        with optimizer.gradients_final():
            loss(0, 0, 1).backward()
            with pytest.raises(longnet.LongNetError, match="one backward pass inside"):
                loss(0, 0, 2).backward()

    returned(run_threads(1, rank))


def test_without_ranks_nothing_moves():
    model, loss = make()
    optimizer = AdamW(model.parameters())
    weight = model.output.data
    with optimizer.gradients_final():
        loss(0, 0, 0).backward()
    gradient = model.output.grad
    optimizer.step(0.1, optimizer.clip_factor(1.0)[0])
    assert model.output.data is weight
    assert model.output.grad is gradient
    assert model.output.store is None
