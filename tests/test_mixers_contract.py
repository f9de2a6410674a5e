"""What holds for every mixer in the folder, whatever it does."""

from itertools import pairwise

import numpy as np
import pytest
from gradients import check_op, variable
from parallel_cases import on_shards, results
from reference import longnet as reference
from test_mixers import MIXERS, SMALL, make

import longnet
from longnet import Config, Tensor
from longnet.autograd import Variable, no_grad

ALONE = {"sliding", "sparse"}  # they need whole sequences


@pytest.fixture(params=MIXERS)
def mixer(request):
    return make(Config(**SMALL, mixer=request.param))


def test_shape_and_dtype_are_those_of_the_input(rng, mixer):
    for shape in ((2, 21, 48), (1, 1, 48), (3, 4, 48)):
        for dtype in (np.float32, np.float16):
            x = Variable(Tensor(rng.standard_normal(shape).astype(dtype)), requires_grad=True)
            out = mixer(x)
            assert (out.shape, out.dtype) == (shape, x.dtype)
            out.backward(Tensor(np.ones(shape, dtype)))
            assert (x.grad.shape, x.grad.dtype) == (shape, x.dtype)


@pytest.mark.parametrize("n", [0, 3, 4, 11, 16, 19])
def test_causality_by_gradient(rng, mixer, n):
    """Row n depends on itself and on no later row."""
    x = variable(rng.standard_normal((2, 21, 48)))
    dout = np.zeros((2, 21, 48), np.float32)
    dout[:, n] = rng.standard_normal((2, 48))
    mixer(x).backward(Tensor(dout))
    moved = np.abs(x.grad.numpy()).max(axis=2)
    assert not moved[:, n + 1 :].any()
    assert moved[:, n].all()


def test_gradient_by_finite_differences(rng, mixer):
    config = mixer.config
    weights = {
        f"mixer.{name}": p.data.numpy().astype(float) for name, p in mixer.named_parameters()
    }
    levels = ((21,), (1,)) if config.mixer == "dense" else config.levels(0)
    check_op(
        mixer,
        lambda x: reference.attention(config, weights, "mixer", x, levels),
        [rng.standard_normal((2, 21, 48))],
        rng,
        tolerance=4e-5,  # a norm, two products and attention, each at 1e-5
    )


def test_padding_and_documents_are_separate(rng, mixer):
    x = rng.standard_normal((1, 21, 48)).astype(np.float32)
    with no_grad():
        packed = mixer(variable(x), cu_seqlens=np.array([0, 5, 5, 21])).data.numpy()
        padded = mixer(variable(np.repeat(x, 2, axis=0)), lengths=np.array([21, 5])).data.numpy()
        for found, a, e in ((packed, 0, 5), (packed, 5, 21), (padded[1:], 0, 5), (padded, 0, 21)):
            alone = mixer(variable(x[:, a:e])).data.numpy()
            np.testing.assert_allclose(found[:1, a:e], alone, rtol=0, atol=4e-6)


def test_operations_are_counted(mixer):
    """14 D for each pair of a query and a key that it sees, on any number of rows."""
    config, D = mixer.config, mixer.config.head_dim
    seen = {
        "dense": lambda n: 3 * n * (n + 1) // 2,
        "sliding": lambda n: 3 * sum(min(i + 1, 4) for i in range(n)),
        "sparse": lambda n: 3 * sum(i % 4 + 1 + i // 4 * 3 for i in range(n)),
        "dilated": lambda n: longnet.DilatedAttention(*config.levels(0)).pairs(n, 3),
    }
    for n in (1, 4, 5, 21, 32):
        assert mixer.flops(n) == 14 * D * seen[config.mixer](n)


@pytest.mark.parametrize("shards", [(10, 11), (1, 20), (17, 0, 4)])
def test_ranks_are_one(rng, mixer, shards):
    """Rows on several ranks give what they give on one; or every rank is told that they cannot."""
    x, dout = rng.standard_normal((2, 1, 21, 48)).astype(np.float32)
    whole = variable(x)
    expected = mixer(whole)
    expected.backward(Tensor(dout))

    def call(comm, rows):
        mine = variable(x[:, rows])
        if mixer.config.mixer in ALONE:
            with pytest.raises(longnet.ConfigError, match=f"found a sequence on {comm.size} rank"):
                mixer(mine, comm=comm, start=rows.start)
            assert comm.bytes_sent == 0
            return expected.data.numpy()[:, rows], whole.grad.numpy()[:, rows]
        module = make(mixer.config)  # ranks do not share memory
        out = module(mine, comm=comm, start=rows.start)
        out.backward(Tensor(np.ascontiguousarray(dout[:, rows])))
        return out.data.numpy(), mine.grad.numpy()

    parts = results(on_shards(call, shards))
    for i, (y, scale) in enumerate(((expected.data, 1), (whole.grad, 3))):
        found = np.concatenate([part[i] for part in parts], axis=1)
        np.testing.assert_allclose(found, y.numpy(), rtol=0, atol=scale * 4e-6)


def test_step_by_step_is_the_whole_pass(rng, mixer):
    """With a cache, in pieces and single rows; or there is said to be none."""
    if mixer.config.mixer in ALONE:
        with pytest.raises(longnet.ConfigError, match="found a cache asked for, expected whole"):
            mixer.cache(1, "float32", "cpu")
        return
    x = rng.standard_normal((1, 41, 48)).astype(np.float32)
    with no_grad():
        whole, cache = mixer(variable(x)).data.numpy(), mixer.cache(1, "float32", "cpu")
        borders = [0, 7, 8, 20, *range(21, 42)]
        for a, e in pairwise(borders):
            found = mixer(variable(x[:, a:e]), cache=cache).data.numpy()
            np.testing.assert_allclose(found, whole[:, a:e], rtol=0, atol=4e-6)
