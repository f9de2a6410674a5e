"""The tape: sums of gradients, what is freed when, no_grad."""

import gc
import weakref

import numpy as np
import pytest
from gradients import variable

import longnet
from longnet import Tensor
from longnet import functional as F
from longnet.autograd import Variable, is_recording, no_grad, record


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


def test_an_op_that_absorbs_gets_what_there_is_so_far(rng):
    """From a node, a leaf, nothing yet, or nothing wanted; and what it returns is the sum."""
    seen = []

    def triple(x: Variable) -> Variable:
        def backward(dy: Tensor, so_far: Tensor | None) -> list[Tensor | None]:
            seen.append(None if so_far is None else value(so_far).tolist())
            return [Tensor(3 * dy.numpy() + (0 if so_far is None else so_far.numpy()))]

        return record(Tensor(3 * x.data.numpy()), [x], backward, absorbs=True)

    x = variable(np.array([1.0]))
    y = F.reshape(x, (1,))
    F.add(F.add(triple(triple(y)), y), x).backward()  # 9 y + y + x
    assert seen == [None, [1.0]]
    assert x.grad.item() == 11
    F.add(triple(x), x).backward()
    assert seen[2:] == [[12.0]]
    assert x.grad.item() == 15
    constant = Variable(Tensor(np.array([1.0], np.float32)))
    weight = variable(np.array([2.0]))
    record(
        Tensor(np.array([2.0], np.float32)),
        [constant, weight],
        lambda dy, so_far: [seen.append(so_far), dy.copy()],
        absorbs=True,
    ).backward()
    assert seen[3:] == [None]
    assert weight.grad.item() == 1
    assert constant.grad is None


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
