"""When a leaf has its whole gradient: no earlier and, where the graph tells, no later."""

import numpy as np
import pytest
from gradients import variable

from longnet import functional as F
from longnet import recompute
from longnet.autograd import Variable, attach
from longnet.finality import leaves_taken, watching
from longnet.recompute import checkpoint, in_chunks


class Leaf(Variable):
    """One that keeps a diary of what happens to it and to the others."""

    def __init__(self, rng, name, diary):
        super().__init__(variable(rng.standard_normal((4, 4))).data, requires_grad=True)
        self.name, self.diary = name, diary
        self.store = self.begin

    def begin(self, gradient):
        self.diary.append(self.name)
        return gradient.copy()

    def _accumulate(self, gradient, owned):
        if self.grad is not None:
            self.diary.append(self.name)
        super()._accumulate(gradient, owned)


@pytest.fixture
def diary():
    return []


@pytest.fixture
def leaves(rng, diary):
    return [Leaf(rng, name, diary) for name in "abcd"]


def walk(out, leaves, diary):
    with watching(set(leaves), lambda leaf: diary.append(leaf.name.upper())):
        out.backward()
    return "".join(diary)


def total(x):
    """A scalar."""
    ones = Variable(variable(np.ones((4, 4))).data)
    x = F.linear(F.linear(x, ones), Variable(variable(np.ones((1, 4))).data))
    return F.linear(F.reshape(x, (1, 4)), Variable(variable(np.ones((1, 4))).data))


def test_a_chain(rng, leaves, diary):
    a, b, c, _ = leaves
    x = variable(rng.standard_normal((4, 4)))
    out = total(F.linear(F.linear(F.linear(x, a), b), c))
    assert walk(out, leaves, diary) == "DcCbBaA"  # what is not reached is final at once


def test_a_leaf_that_is_used_twice(rng, leaves, diary):
    a, b, c, d = leaves
    x = variable(rng.standard_normal((4, 4)))
    out = total(F.linear(F.linear(F.linear(F.linear(x, d), a), b), a))
    assert walk(out, leaves, diary) == "CabBaAdD"
    diary.clear()
    out = total(F.linear(F.linear(c, a), b))  # an input that absorbs
    assert walk(out, leaves, diary) in ("DbBcaCA", "DbBcaAC", "DbBacCA", "DbBacAC")


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("chunk", [3, 100])
def test_checkpoints(rng, leaves, diary, monkeypatch, tail, chunk):
    monkeypatch.setattr(recompute, "CHUNK_ROWS", chunk)
    a, b, c, d = leaves
    x = F.linear(variable(rng.standard_normal((4, 4))), d)
    rows = {"tail": lambda x: F.linear(x, c)} if tail else {}
    y = checkpoint(lambda x: F.linear(F.linear(F.linear(x, a), b), a), x, **rows)
    expected = {"a": 2, "b": 1, "d": 1, "c": (2 if chunk == 3 else 1) if tail else 0}
    found = walk(total(F.linear(y, b)), leaves, diary)
    assert found.count("b") == expected.pop("b") + 1
    for name, count in expected.items():
        assert found.count(name) == count
        assert found.rfind(name) < found.index(name.upper())
    assert found.rfind("b") < found.index("B")
    # Those of the checkpoint alone are final before what lies below it is differentiated.
    assert max(found.index("A"), found.index("B")) < found.index("d")


def test_chunks_and_nested_checkpoints(rng, leaves, diary, monkeypatch):
    monkeypatch.setattr(recompute, "CHUNK_ROWS", 3)
    a, b, _, d = leaves
    x = F.linear(variable(rng.standard_normal((4, 4))), d)
    y = in_chunks(lambda x: F.linear(x, a), x)
    z = checkpoint(lambda y: checkpoint(lambda y: F.linear(y, b), y), y)
    assert walk(total(z), leaves, diary) == "CbBaaAdD"


def test_a_node_that_does_not_say_what_it_reaches(rng, leaves, diary):
    a, b, c, d = leaves
    x = F.linear(variable(rng.standard_normal((4, 4))), d)
    inner = F.linear(Variable(x.data, requires_grad=True), a)

    def backward(gradient):
        inner.backward(gradient)
        return [gradient]

    y = attach(inner.data, [x], backward)
    found = walk(total(F.linear(F.linear(y, b), c)), leaves, diary)
    assert found.startswith("cba")  # any of them might have got more
    assert set(found[3:6]) == set("ABC")
    assert found[6:] == "dD"


def test_leaves_taken(rng, leaves):
    a, b, c, _ = leaves
    x = variable(rng.standard_normal((4, 4)))  # nobody watches it
    with leaves_taken() as outer:
        F.linear(x, a)
        with leaves_taken() as inner:
            F.linear(x, b)
    F.linear(x, c)
    assert (outer, inner) == ({a, b}, {b})


def test_nothing_is_watched_after_the_block(rng, leaves, diary):
    a, *_ = leaves
    with watching(set(leaves), lambda leaf: diary.append(leaf.name.upper())):
        pass
    total(F.linear(variable(rng.standard_normal((4, 4))), a)).backward()
    assert diary == ["a"]
