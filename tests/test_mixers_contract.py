"""What holds for every mixer in the folder, whatever it does, on the CPU and on a GPU."""

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from gradients import back, check_op, put, variable
from ops import Call
from parallel_cases import on_shards, results
from reference import longnet as reference
from test_mixers import MIXERS, SMALL, make

import longnet
from longnet import Config
from longnet.autograd import Variable, no_grad


@pytest.fixture(params=MIXERS)
def mixer(request, device):
    return make(Config(**SMALL, mixer=request.param), device=device)


def run(mixer, x, dout, **options):
    """Output, and the gradients of x and of every parameter, on the device of the mixer."""
    rows = variable(x)
    out = mixer(rows, **options)
    out.backward(put(dout))
    gradients = {name: back(p.grad) for name, p in mixer.named_parameters() if p.grad is not None}
    return {"out": back(out.data), "x": back(rows.grad), **gradients}


def test_shape_and_dtype_are_those_of_the_input(rng, mixer):
    for shape in ((2, 21, 48), (1, 1, 48), (3, 4, 48)):
        for dtype in (np.float32, np.float16):
            x = Variable(put(rng.standard_normal(shape).astype(dtype)), requires_grad=True)
            out = mixer(x)
            assert (out.shape, out.dtype) == (shape, x.dtype)
            out.backward(put(np.ones(shape, dtype)))
            assert (x.grad.shape, x.grad.dtype) == (shape, x.dtype)


@pytest.mark.parametrize("n", [0, 3, 4, 11, 16, 19])
def test_causality_by_gradient(rng, mixer, n):
    """Row n depends on itself and on no later row."""
    dout = np.zeros((2, 21, 48), np.float32)
    dout[:, n] = rng.standard_normal((2, 48))
    moved = np.abs(run(mixer, rng.standard_normal((2, 21, 48)), dout)["x"]).max(axis=2)
    assert not moved[:, n + 1 :].any()
    assert moved[:, n].all()


def test_gradient_by_finite_differences(rng, mixer):
    config = mixer.config
    weights = {f"mixer.{name}": back(p.data).astype(float) for name, p in mixer.named_parameters()}
    levels = ((21,), (1,)) if config.mixer == "dense" else config.levels(0)
    check_op(
        mixer,
        lambda x: reference.attention(config, weights, "mixer", x, levels),
        [rng.standard_normal((2, 21, 48))],
        rng,
        tolerance=4e-5,  # a norm, two products and attention, each at 1e-5
    )


@pytest.mark.gpu
@pytest.mark.parametrize("mixer", MIXERS, indirect=True)
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("sequences", [{}, {"lengths": [21, 5]}, {"cu_seqlens": [0, 5, 5, 21]}])
def test_the_gpu_s_is_the_cpu_s(rng, mixer, device, monkeypatch, sequences):
    """Output and every gradient, and a cache's rows."""
    x, dout = rng.standard_normal((2, 1 if "cu_seqlens" in sequences else 2, 21, 48))
    x, dout = x.astype(np.float32), dout.astype(np.float32)
    options = {name: np.array(numbers) for name, numbers in sequences.items()}
    found = run(mixer, x, dout, **options)
    followed = in_pieces(mixer, x, [0, 6, 7, 21])
    monkeypatch.setattr("ops.Call.device", "cpu")
    other = make(mixer.config)
    other.load_state_dict(mixer.state_dict())
    expected = run(other, x, dout, **options)
    assert found.keys() == expected.keys()
    for name, y in expected.items():
        assert np.abs(found[name] - y).max() <= 2e-5 * np.abs(y).max() + 1e-7, name
    y = in_pieces(other, x, [0, 6, 7, 21])
    np.testing.assert_allclose(followed, y, rtol=0, atol=2e-5 * np.abs(y).max())


def test_padding_and_documents_are_separate(rng, mixer):
    x = rng.standard_normal((1, 21, 48)).astype(np.float32)
    with no_grad():
        packed = back(mixer(variable(x), cu_seqlens=np.array([0, 5, 5, 21])).data)
        two = variable(np.repeat(x, 2, axis=0))
        padded = back(mixer(two, lengths=np.array([21, 5])).data)
        for found, a, e in ((packed, 0, 5), (packed, 5, 21), (padded[1:], 0, 5), (padded, 0, 21)):
            alone = back(mixer(variable(x[:, a:e])).data)
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


@pytest.mark.parametrize("shards", [(10, 11), (1, 20), (17, 0, 4), (2, 1, 1, 1, 3, 2, 11)])
@pytest.mark.parametrize("sequences", [{}, {"lengths": [21, 8]}, {"cu_seqlens": [0, 5, 5, 19, 21]}])
@pytest.mark.parametrize("name", MIXERS)
def test_ranks_are_one(rng, name, shards, sequences):
    """Rows on several ranks give what they give on one, and gradients that add up to its own."""
    config = Config(**SMALL, mixer=name)
    x, dout = rng.standard_normal((2, 1 if "cu_seqlens" in sequences else 2, 21, 48))
    x, dout = x.astype(np.float32), dout.astype(np.float32)
    options = {name: np.array(numbers) for name, numbers in sequences.items()}
    expected = run(make(config), x, dout, **options)

    def call(comm, rows):
        module = make(config)  # ranks do not share memory
        mine = np.ascontiguousarray(x[:, rows]), np.ascontiguousarray(dout[:, rows])
        return run(module, *mine, comm=comm, start=rows.start, **options)

    parts = results(on_shards(call, shards))
    for name, y in expected.items():
        if name in ("out", "x"):
            found = np.concatenate([part[name] for part in parts], axis=1)
        else:
            found = sum(part[name] for part in parts if name in part)
        assert np.abs(found - y).max() <= 4e-6 * max(1, np.abs(y).max()), name


def in_pieces(mixer, x, borders, dtype=np.float32):
    """What x (B, N, E) gives between `borders`, one after another, with a cache."""
    cache = mixer.cache(x.shape[0], np.dtype(dtype).name, Call.device)
    with no_grad():
        found = [
            back(mixer(Variable(put(x[:, a:e].astype(dtype))), cache=cache).data)
            for a, e in pairwise(borders)
        ]
    assert cache.seen == [x.shape[1]] * x.shape[0]
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize(
    "borders", [range(42), [0, 7, 8, 20, *range(21, 42)], [0, 4, 8, 41], [0, 41]]
)
def test_step_by_step_is_the_whole_pass(rng, mixer, borders):
    x = rng.standard_normal((2, 41, 48)).astype(np.float32)
    with no_grad():
        whole = back(mixer(variable(x)).data)
    np.testing.assert_allclose(in_pieces(mixer, x, borders), whole, rtol=0, atol=4e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-3), (ml_dtypes.bfloat16, 2e-2)])
def test_step_by_step_in_half_precision(rng, mixer, dtype, tolerance):
    x = rng.standard_normal((1, 41, 48)).astype(np.float32)
    with no_grad():
        whole = back(mixer(Variable(put(x.astype(dtype)))).data).astype(np.float32)
    found = in_pieces(mixer, x, [0, 7, 8, 20, *range(21, 42)], dtype).astype(np.float32)
    assert np.abs(found - whole).max() <= tolerance * np.abs(whole).max()


def test_sequences_of_a_batch_are_each_as_alone(rng, mixer):
    """Each has as many rows of a call as `lengths` says; what is saved and restored goes on."""
    x = rng.standard_normal((3, 60, 48)).astype(np.float32)
    with no_grad():
        whole = back(mixer(variable(x)).data)
        cache = mixer.cache(3, "float32", Call.device)
        for n in [1, 5, 1, 1, 9, 1, 17, 1, 1, 1, 1, 4]:
            counts = rng.integers(0, n + 1, 3)
            rows = np.full((3, n, 48), 7.0, np.float32)
            before = cache.seen
            for b, count in enumerate(counts):
                rows[b, :count] = x[b, before[b] : before[b] + count]
            found = back(mixer(variable(rows), cache=cache, lengths=counts).data)
            for b, count in enumerate(counts):
                expected = whole[b, before[b] : before[b] + count]
                np.testing.assert_allclose(found[b, :count], expected, rtol=0, atol=4e-6)
            other = mixer.cache(3, "float32", Call.device)
            other.restore(cache.seen, cache.state())
            assert other.nbytes == cache.nbytes
            cache = other
