"""What the backward pass computes again: checkpoints, and rows in chunks."""

import numpy as np
import pytest
from gradients import variable

import longnet
from longnet import Tensor, random, recompute
from longnet import functional as F
from longnet.autograd import Variable, no_grad
from longnet.kept import keep
from longnet.recompute import checkpoint, in_chunks


def value(x: Tensor) -> np.ndarray:
    return x.numpy().copy()


def layers(weight: Variable, p: float):
    def run(x: Variable) -> Variable:
        y = F.dropout(F.gelu(F.linear(x, weight)), p, random.current().next_seed())
        return F.add(y, F.dropout(x, p, random.current().next_seed()))

    return run


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_checkpoint_gives_the_same_bits(rng, p):
    array, matrix = rng.standard_normal((7, 8)), rng.standard_normal((3, 8, 8))
    dout = rng.standard_normal((7, 8)).astype(np.float32)

    def run(keep: bool) -> list[np.ndarray]:
        x, weights = variable(array), [variable(w) for w in matrix]
        out = F.gelu(x)
        with random.use(random.RandomState(5)):
            for weight in weights:
                fn = layers(weight, p)
                out = fn(out) if keep else checkpoint(fn, out)
        drawn = random.current().drawn
        out.backward(Tensor(dout.copy()))
        assert random.current().drawn == drawn
        return [value(out.data), *(value(v.grad) for v in (x, *weights))]

    for kept, recomputed in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(kept, recomputed)


def test_no_rows(rng):
    x, weight = variable(rng.standard_normal((0, 8))), variable(rng.standard_normal((3, 8)))
    out = checkpoint(F.gelu, x, tail=lambda rows: F.linear(rows, weight))
    assert out.shape == (0, 3)
    out.backward(Tensor.empty((0, 3)))
    assert x.grad.shape == (0, 8)
    assert not weight.grad.numpy().any()


def test_nested_checkpoints_and_arguments_without_gradient(rng):
    weight = variable(rng.standard_normal((8, 8)))
    x = Variable(Tensor(rng.standard_normal((3, 8)).astype(np.float32)))
    inner = layers(weight, 0.2)
    results = []
    for fn in (inner, lambda v: checkpoint(inner, v)):
        weight.grad = None
        with random.use(random.RandomState(1)):
            out = checkpoint(fn, x)
        out.backward(Tensor(np.ones((3, 8), np.float32)))
        assert x.grad is None
        results.append(value(weight.grad))
    np.testing.assert_array_equal(*results)


def test_checkpoint_keeps_nothing_but_its_arguments(rng):
    x = variable(rng.standard_normal((64, 64)))
    fn = layers(variable(rng.standard_normal((64, 64))), 0.0)

    before = longnet.memory_stats()["bytes"]
    out = fn(x)
    kept = longnet.memory_stats()["bytes"] - before
    del out
    out = checkpoint(fn, x)
    assert longnet.memory_stats()["bytes"] - before == out.data.nbytes < kept


def test_checkpoint_of_the_identity_leaves_its_argument_alone(rng):
    x = variable(rng.standard_normal(3))
    out = checkpoint(lambda v: v, x)
    out.backward(Tensor(np.ones(3, np.float32)))
    np.testing.assert_array_equal(x.grad.numpy(), np.ones(3))


def test_checkpoint_under_no_grad(rng):
    x = variable(rng.standard_normal(3))
    with no_grad():
        assert not checkpoint(F.gelu, x).requires_grad


@pytest.mark.parametrize("keeping", [False, True])
def test_what_is_kept_is_not_computed_again(rng, keeping):
    calls = []

    def double() -> tuple[Tensor, ...]:
        calls.append(1)
        return (Tensor(2 * x.data.numpy()),)

    x = variable(rng.standard_normal((4, 3)))

    def fn(v: Variable) -> Variable:
        keep(double)
        return F.gelu(F.add(v, Variable(keep(double)[0])))

    out = checkpoint(fn, x, keep=keeping)
    assert len(calls) == 2
    out.backward(Tensor(np.ones((4, 3), np.float32)))
    assert len(calls) == (2 if keeping else 4)


@pytest.mark.parametrize("rows", [4, 6, 13, 100])
def test_chunks_of_rows(rng, monkeypatch, rows):
    """The same with and without a checkpoint, and but for the order of sums as all rows at once."""
    weights = rng.standard_normal((2, 8, 8))
    array, dout = rng.standard_normal((1, 13, 8)), rng.standard_normal((1, 13, 8))

    def run(mode: str) -> list[np.ndarray]:
        x, (a, b) = variable(array), (variable(w) for w in weights)
        head = layers(a, 0.3)

        def tail(v: Variable) -> Variable:
            return F.add(v, F.gelu(F.linear(v, b)))

        with random.use(random.RandomState(5)):
            if mode == "checkpoint":
                out = checkpoint(head, x, tail=tail)
            else:
                out = (tail if mode == "whole" else lambda v: in_chunks(tail, v))(head(x))
        out.backward(Tensor(dout.astype(np.float32)))
        return [value(out.data), *(value(v.grad) for v in (x, a, b))]

    monkeypatch.setattr(recompute, "CHUNK_ROWS", rows)
    whole, chunked, checkpointed = (run(mode) for mode in ("whole", "chunks", "checkpoint"))
    for expected, found, again in zip(whole, chunked, checkpointed, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(again, found)


def test_a_checkpoint_stores_one_chunk_of_its_tail(rng, monkeypatch):
    monkeypatch.setattr(recompute, "CHUNK_ROWS", 256)
    weight = variable(rng.standard_normal((64, 64)))
    x = variable(rng.standard_normal((4096, 64)))
    wide = variable(rng.standard_normal((640, 64)))
    narrow = variable(rng.standard_normal((64, 640)))

    def tail(v: Variable) -> Variable:
        return F.linear(F.gelu(F.linear(v, wide)), narrow)

    before = longnet.memory_stats()["bytes"]
    out = checkpoint(lambda v: F.linear(v, weight), x, tail=tail)
    assert longnet.memory_stats()["bytes"] - before == out.data.nbytes
    longnet.reset_peak_memory()
    out.backward(Tensor(np.ones(out.shape, np.float32)))
    assert longnet.memory_stats()["peak_bytes"] - before < 4096 * 640 * 4
