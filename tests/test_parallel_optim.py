"""AdamW on many ranks against AdamW on one."""

import threading
from pathlib import Path

import numpy as np
import pytest
from optim_cases import BUCKET_BYTES, ROUNDING, SHAPES, assert_equal, make, result, steps
from ranks import gpus, mpirun, needs_mpi, returned, run_threads

import longnet
from longnet import Tensor, nn
from longnet._core import ops
from longnet.optim import AdamW, buckets

SIZES = [1, 2, 3, 4]
RANK = str(Path(__file__).with_name("optim_rank.py"))


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", BUCKET_BYTES)


@pytest.mark.parametrize("options", ROUNDING)
@pytest.mark.parametrize("size", SIZES)
def test_the_bits_of_one_device(size, options):
    alone = AdamW(make(), weight_decay=0.1, **options)
    steps(alone, range(size))
    expected = result(alone)

    def rank(comm):
        optimizer = AdamW(make(seed=comm.rank), weight_decay=0.1, **options, comm=comm)
        steps(optimizer, [comm.rank])
        return result(optimizer)

    whole, *others = returned(run_threads(size, rank))
    assert list(whole) == list(expected)
    assert_equal(whole, expected)
    for found in others:  # every rank has the weights, and the first the state
        assert list(found) == [n for n in expected if n in SHAPES or n.endswith(".now")]
        assert_equal(found, expected)


@pytest.mark.parametrize("size", SIZES)
def test_clipping(size):
    """Within rounding of one device; the same bits on all ranks."""
    alone = AdamW(make())
    steps(alone, range(size), clip=1.5)
    expected = result(alone)

    def rank(comm):
        optimizer = AdamW(make(), comm=comm)
        steps(optimizer, [comm.rank], clip=1.5)
        factor, norm = optimizer.clip_factor(1.5, divisor=2.0)
        return result(optimizer), factor.item(), norm.item()

    ranks = returned(run_threads(size, rank))
    factor, norm = alone.clip_factor(1.5, divisor=2.0)
    assert ranks[0][1] < 0.5 / 2  # it is active
    for found, *numbers in ranks:
        assert tuple(numbers) == ranks[0][1:]
        np.testing.assert_allclose(numbers, [factor.item(), norm.item()], rtol=1e-6)
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[name], rtol=2e-6, atol=1e-7, err_msg=name)
            if name in SHAPES:
                np.testing.assert_array_equal(array, ranks[0][0][name])


def test_gradients_that_are_not_finite_change_nothing():
    def rank(comm):
        optimizer = AdamW(make(), comm=comm)
        steps(optimizer, [comm.rank], count=2)
        before = result(optimizer)
        optimizer.zero_grad()
        p = optimizer.parameters[0]
        p.backward(Tensor(np.full(p.shape, np.inf if comm.rank else 1.0, np.float32)))
        optimizer.step(0.1, optimizer.clip_factor(1.0)[0])
        assert_equal(result(optimizer), before)

    returned(run_threads(3, rank))


def test_dropped_gradients_wait_for_nobody():
    """Not for a rank that might have failed; and they are not in what follows."""
    alone = AdamW(make())
    for begin in (0, 2):
        steps(alone, range(2), begin=begin, count=1)
    expected, dropped = result(alone), threading.Event()

    def rank(comm):
        optimizer = AdamW(make(), comm=comm)
        steps(optimizer, [comm.rank], count=1)
        assert comm.rank == 0 or dropped.wait(20)
        optimizer.zero_grad()
        for p in optimizer.parameters:
            if p.name != "unused":
                p.backward(Tensor(np.full(p.shape, 7, np.float32)))
        with optimizer.gradients_final():
            pass
        optimizer.zero_grad()
        dropped.set()
        steps(optimizer, [comm.rank], begin=2, count=1)
        return result(optimizer)

    for found in returned(run_threads(2, rank)):
        assert_equal(found, expected)


@pytest.mark.parametrize("options", ROUNDING)
def test_a_state_of_any_ranks_on_any_others(options):
    def start(comm):
        optimizer = AdamW(make(), **options, comm=comm)
        for begin in (0, 2):  # state_dict has no effect on what follows
            steps(optimizer, range(comm.rank, 12, comm.size), begin=begin, count=2)
            if begin == 0:
                state, weights = optimizer.state_dict(), result(optimizer)
        return state, weights, result(optimizer)

    (state, weights, expected), *others = returned(run_threads(3, start))
    assert all(found == {"steps": 2} for found, *_ in others)

    def go_on(comm):
        parameters = make(seed=5)
        for p in parameters:
            p.data.numpy()[...] = weights[p.name]
        optimizer = AdamW(parameters, **options, comm=comm)
        optimizer.load_state_dict(state)
        assert optimizer.steps == 2
        rank, size = (0, 1) if comm is None else (comm.rank, comm.size)
        steps(optimizer, range(rank, 12, size), begin=2, count=2)
        return result(optimizer)

    for size in SIZES:
        for found in returned(run_threads(size, go_on)):
            assert_equal(found, expected)
    assert_equal(go_on(None), expected)


def test_bytes_of_a_step():
    def rank(comm):
        optimizer = AdamW(make(), comm=comm)
        steps(optimizer, [comm.rank], count=1)  # the ranks say which parameters have gradients
        before = comm.bytes_received, comm.bytes_sent
        steps(optimizer, [comm.rank], begin=2, count=1)
        return comm.bytes_received - before[0], comm.bytes_sent - before[1]

    size = 3
    sizes = [-(-int(np.prod(shape)) // 64) * 64 for shape in SHAPES.values()]
    assert sizes == [64, 64, 64, 1344, 64, 192]
    padded = [3 * 128, 3 * 448, 3 * 64]  # from the last: e, unused; d; c, b, a
    for found in returned(run_threads(size, rank)):
        assert found == (2 * (size - 1) * 4 * sum(padded) // size,) * 2


def test_memory_is_that_of_a_slice():
    size, shape = 4, (512, 512)

    def rank(comm):
        p = nn.Parameter(shape)
        ops.fill(p.data, 1.0)
        p.name = "a"
        comm.barrier()
        before = longnet.memory_stats()["bytes"]
        comm.barrier()
        optimizer = AdamW([p], comm=comm)
        comm.barrier()
        held = longnet.memory_stats()["bytes"] - before
        comm.barrier()
        del p, optimizer  # no cycle holds memory until Python looks for cycles
        comm.barrier()
        left = longnet.memory_stats()["bytes"] - before
        comm.barrier()
        return held, left

    # Of each of 4 threads: the gradients, and two moments cut in four. The weights have only moved.
    for held, left in returned(run_threads(size, rank)):
        assert held == size * 4 * 512 * 512 * (1 + 2 / size)
        assert left == -size * 4 * 512 * 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 1e-7}, "optimizer: eps: found 1e-07 on rank 1, expected 1e-08 as on ranks 0, 2"),
        ({"betas": (0.5, 0.6)}, r"optimizer: betas: found \(0\.5, 0\.6\) on rank 1"),
        ({"weight_decay": 0.0}, "optimizer: weight_decay: found 0.0 on rank 1"),
        ({"dtype": "bfloat16"}, "optimizer: dtype: found 'bfloat16' on rank 1"),
        ({"stochastic_rounding": True}, "optimizer: stochastic_rounding: found True on rank 1"),
        ({"seed": 3}, "optimizer: seed: found 3 on rank 1"),
        ({"parameters": make()[:2]}, "optimizer: number of parameters: found 2 on rank 1"),
        (
            {"parameters": make()[::-1]},
            r"optimizer: parameter 0: found \('e', \(129,\)\) on rank 1, expected \('a', \(5, 7",
        ),
    ],
)
def test_ranks_that_differ(change, message):
    def rank(comm):
        AdamW(**{"parameters": make(), **(change if comm.rank == 1 else {})}, comm=comm)

    for outcome in run_threads(3, rank):
        with pytest.raises(longnet.ConfigError, match=message):
            raise outcome


def test_a_state_that_one_rank_cannot_load():
    def rank(comm):
        optimizer = AdamW(make(), comm=comm)
        steps(optimizer, [comm.rank], count=1)
        before = result(optimizer)
        state = AdamW(make()).state_dict()
        if comm.rank == 1:
            del state["d.v"]
        with pytest.raises(longnet.CheckpointError, match=r"optimizer: found no d\.v"):
            optimizer.load_state_dict(state)
        state = AdamW(make()).state_dict() | {"steps": comm.rank}
        with pytest.raises(longnet.ConfigError, match="optimizer: steps: found 0 on rank 0"):
            optimizer.load_state_dict(state | {"steps": min(comm.rank, 1)})
        assert optimizer.steps == 1
        assert_equal(result(optimizer), before)

    returned(run_threads(3, rank))


def test_no_gradient_on_any_rank():
    def rank(comm):
        AdamW(make(), comm=comm).clip_factor(1.0)

    for outcome in run_threads(2, rank):
        with pytest.raises(longnet.ConfigError, match="clip_factor: found no gradient"):
            raise outcome


def test_a_rank_alone_with_a_change():
    """Of which parameters have gradients: an error everywhere, not a step of something else."""

    def rank(comm):
        optimizer = AdamW(make(), comm=comm)
        steps(optimizer, [comm.rank], count=1)
        optimizer.zero_grad()
        for p in optimizer.parameters[: 2 if comm.rank == 1 else None]:
            if p.name != "unused":
                p.backward(Tensor(np.ones(p.shape, np.float32)))
        optimizer.step(0.1)

    for outcome in run_threads(3, rank, timeout=5):
        with pytest.raises(longnet.CommunicatorError, match="gather_objects"):
            raise outcome


@needs_mpi
def test_processes():
    done = mpirun(3, RANK, "cpu")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", *(f"rank {i} agrees" for i in range(3))]


@pytest.mark.gpu
def test_gpus():
    for done in gpus(2, RANK, "cuda"):
        assert done.returncode == 0, done.stderr
        assert "agrees" in done.stdout


def test_what_is_no_communicator():
    with pytest.raises(TypeError, match=r"comm: found 3, expected a longnet\.Communicator"):
        AdamW(make(), comm=3)
