"""The tape: sums of gradients, what is freed when, no_grad, checkpoints."""

import gc
import weakref

import numpy as np
import pytest
from gradients import variable

import longnet
from longnet import Tensor, random
from longnet import functional as F
from longnet.autograd import Variable, checkpoint, is_recording, no_grad, record


def value(x: Tensor) -> np.ndarray:
    return x.numpy().copy()


def test_gradients_that_meet_are_summed(rng):
    x = variable(rng.standard_normal((3, 5)))
    y = F.add(x, x)
    z = F.add(F.add(y, x), y)  # 5 x
    dz = rng.standard_normal((3, 5)).astype(np.float32)
    z.backward(Tensor(dz))
    np.testing.assert_allclose(x.grad.numpy(), 5 * dz, rtol=1e-6)


def test_a_gradient_handed_to_two_places_is_not_overwritten(rng):
    x, y = variable(rng.standard_normal((4, 6))), variable(rng.standard_normal((4, 6)))
    total = F.add(F.gelu(x), y)
    out = F.add(total, F.gelu(total))
    dout = rng.standard_normal((4, 6)).astype(np.float32)
    given = Tensor(dout.copy())
    out.backward(given)
    np.testing.assert_array_equal(given.numpy(), dout)
    again = variable(total.data.numpy())
    F.add(again, F.gelu(again)).backward(Tensor(dout))
    np.testing.assert_array_equal(y.grad.numpy(), again.grad.numpy())
    assert not np.shares_memory(y.grad.numpy(), given.numpy())


def test_several_backward_calls_accumulate(rng):
    arrays = rng.standard_normal((2, 3, 4)).astype(np.float32)
    weight = variable(rng.standard_normal((5, 4)))
    parts = []
    for array in arrays:
        alone = variable(weight.data.numpy())
        for w in (weight, alone):
            out = F.linear(variable(array), w)
            out.backward(Tensor(np.ones(out.shape, np.float32)))
        parts.append(value(alone.grad))
    np.testing.assert_array_equal(weight.grad.numpy(), parts[0] + parts[1])


def test_backward_of_a_leaf():
    x = variable(np.zeros(3))
    for _ in range(2):
        x.backward(Tensor(np.array([1, 2, 3], np.float32)))
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4, 6])


def test_the_graph_is_freed_while_it_is_walked(rng):
    class Held:
        """Stands for memory that a backward function needs."""

    alive = []

    def step(x: Variable) -> Variable:
        held = Held()
        alive.append(weakref.ref(held))
        position = len(alive) - 1

        def backward(dout: Tensor) -> list[Tensor]:
            assert held is not None
            # what comes later in the forward pass is gone already
            assert [ref() is None for ref in alive[position + 1 :]] == [True] * (5 - position - 1)
            return [dout.copy()]

        return record(x.data.copy(), [x], backward)

    x = variable(rng.standard_normal(4))
    out = x
    for _ in range(5):
        out = step(out)
    gc.disable()
    try:
        out.backward(Tensor(np.ones(4, np.float32)))
        assert all(ref() is None for ref in alive)
    finally:
        gc.enable()
    np.testing.assert_array_equal(x.grad.numpy(), np.ones(4))


def test_a_second_backward_is_an_error(rng):
    x = variable(rng.standard_normal((2, 3)))
    y = F.gelu(x)
    out, other = F.gelu(y), F.gelu(y)
    ones = Tensor(np.ones((2, 3), np.float32))
    out.backward(ones)
    before = value(x.grad)
    for freed in (out, other):  # `other` leads to y, which is freed
        with pytest.raises(longnet.LongNetError, match="freed by an earlier backward"):
            freed.backward(ones)
    np.testing.assert_array_equal(x.grad.numpy(), before)


def test_backward_names_what_is_missing(rng):
    constant = Variable(Tensor(np.zeros((2, 2), np.float32)))
    with pytest.raises(longnet.LongNetError, match="requires no gradient"):
        F.add(constant, constant).backward()
    x = variable(np.zeros((2, 2)))
    with pytest.raises(longnet.ShapeError, match=r"shape \(2, 2\) and no gradient"):
        F.add(x, constant).backward()
    with pytest.raises(longnet.ShapeError, match=r"shape \(4,\), expected \(2, 2\)"):
        F.add(x, constant).backward(Tensor(np.zeros(4, np.float32)))
    assert x.grad is None


def test_a_gradient_of_another_shape_is_an_error():
    x = variable(np.zeros(3))
    wrong = record(x.data.copy(), [x], lambda dout: [Tensor(np.zeros(4, np.float32))])
    with pytest.raises(longnet.ShapeError, match=r"\(4,\), expected \(3,\)"):
        wrong.backward(Tensor(np.ones(3, np.float32)))


def test_only_what_wants_a_gradient_gets_one(rng):
    x = Variable(Tensor(rng.standard_normal((3, 4)).astype(np.float32)))
    weight = variable(rng.standard_normal((2, 4)))
    out = F.linear(x, weight)
    out.backward(Tensor(np.ones((3, 2), np.float32)))
    assert x.grad is None
    assert weight.grad is not None
    assert out.grad is None


def test_no_grad():
    x = variable(np.ones(3))
    with no_grad():
        assert not is_recording()
        y = F.gelu(x)
        with no_grad():
            pass
        assert not is_recording()
    assert is_recording()
    assert not y.requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        1 / 0  # noqa: B018
    assert is_recording()


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
