"""One rank of tests/test_communicator_nccl.py: `python nccl_rank.py SCENARIO`, as torchrun does.

Prints one JSON object a line: what a scenario found, with the time that it took.
"""

import functools
import json
import os
import signal
import sys
import time
import traceback

import ml_dtypes
import numpy as np
import pytest

import longnet
from longnet import Stream, Tensor, _core

TYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.int64, np.uint8]
DTYPES = {np.dtype(each).name: each for each in TYPES}
TIMEOUT = 6  # seconds, of the scenarios that fail
SHAPES = [(3, 5, 7), (1,), (1 << 18,), (0, 4), ()]


def data(rank, shape, dtype="float32", seed=0):
    """What a rank has: any rank can make it. Small integers, whose sums are exact."""
    rng = np.random.default_rng([seed, rank, *shape])
    return rng.integers(0, 30, shape).astype(DTYPES[dtype])


def on(comm, array):
    return Tensor(np.asarray(array, order="C")).to(comm.device)


def empty(comm, shape, dtype="float32"):
    return on(comm, np.full(shape, 99, DTYPES[dtype]))


def equal(tensor, expected):
    np.testing.assert_array_equal(tensor.to("cpu").numpy(), expected)


def everywhere(comm, *args, **kwargs):
    return np.stack([data(rank, *args, **kwargs) for rank in range(comm.size)])


def each(test):
    """The test for every dtype and shape, waiting and not."""

    @functools.wraps(test)
    def run(comm):
        for dtype in DTYPES:
            for shape in SHAPES:
                test(comm, shape, dtype, True)
                test(comm, shape, dtype, False)

    return run


def finish(work):
    if work is not None:
        work.wait()
        work.wait()


@each
def all_gather(comm, shape, dtype, blocking):
    out, x = empty(comm, (comm.size, *shape), dtype), on(comm, data(comm.rank, shape, dtype))
    finish(comm.all_gather(out, x, blocking=blocking))
    equal(out, everywhere(comm, shape, dtype))


@each
def reduce_scatter(comm, shape, dtype, blocking):
    x = on(comm, data(comm.rank, (comm.size, *shape), dtype))
    out = empty(comm, shape, dtype)
    finish(comm.reduce_scatter(out, x, blocking=blocking))
    whole = everywhere(comm, (comm.size, *shape), dtype).astype(np.float64)
    equal(out, whole.sum(0)[comm.rank].astype(DTYPES[dtype]))


@each
def all_reduce(comm, shape, dtype, blocking):
    x, y = (on(comm, data(comm.rank, shape, dtype)) for _ in range(2))
    finish(comm.all_reduce(x, blocking=blocking))
    finish(comm.all_reduce(y, "max", blocking=blocking))
    whole = everywhere(comm, shape, dtype)
    equal(x, whole.astype(np.float64).sum(0).astype(DTYPES[dtype]))
    equal(y, whole.max(0))


def not_a_number_is_largest(comm):
    for dtype in ("float32", "float16", "bfloat16"):
        array = data(comm.rank, (5,), dtype)
        array[comm.rank] = np.nan
        x = on(comm, array)
        comm.all_reduce(x, "max")
        found = np.isnan(x.to("cpu").numpy().astype(np.float32))
        assert found.tolist() == [rank < comm.size for rank in range(5)]


@each
def broadcast(comm, shape, dtype, blocking):
    x = on(comm, data(comm.rank, shape, dtype))
    finish(comm.broadcast(x, 1, blocking=blocking))
    equal(x, data(1, shape, dtype))


@each
def send_and_recv(comm, shape, dtype, blocking):
    x = on(comm, data(comm.rank, shape, dtype))
    if comm.rank == 0:
        finish(comm.send(x, 1, blocking=blocking))
    elif comm.rank == 1:
        finish(comm.recv(x, 0, blocking=blocking))
        equal(x, data(0, shape, dtype))


def exchange_of_unequal_sizes(comm):
    """Two to every rank, oneself too, of sizes that both ends know; some are empty."""

    def size(source, target, i):
        return 1000 * source + 10 * target + 7 * i if (source, i) != (0, 1) else 0

    def message(source, target, i):
        return data(source, (size(source, target, i), 2), "bfloat16", seed=target + 10 * i)

    ranks = range(comm.size)
    pairs = [(peer, i) for peer in ranks for i in range(2)]
    sends = [(p, on(comm, message(comm.rank, p, i))) for p, i in pairs]
    receives = [(p, empty(comm, (size(p, comm.rank, i), 2), "bfloat16")) for p, i in pairs]
    before = comm.bytes_sent, comm.bytes_received
    finish(comm.exchange(sends, receives, blocking=False))
    for (peer, i), (_, x) in zip(pairs, receives, strict=True):
        equal(x, message(peer, comm.rank, i))
    sent = sum(x.nbytes for peer, x in sends if peer != comm.rank)
    received = sum(x.nbytes for peer, x in receives if peer != comm.rank)
    assert (comm.bytes_sent - before[0], comm.bytes_received - before[1]) == (sent, received)
    assert sent > 0


def streams_are_ordered(comm):
    """What is queued before and after runs in order, without the host; also on another stream."""
    n = 1 << 24
    for stream in (Stream.current(comm.device), Stream(comm.device)):
        with stream:
            x = Tensor.empty(n, device=comm.device)
            out = Tensor.empty((comm.size, n), device=comm.device)
            for turn in range(5):
                _core.ops.fill(x, comm.rank + turn)
                work = comm.all_gather(out, x, blocking=False)
                work.wait()
                _core.ops.fill(x, -1.0)
            del x
            _core.ops.fill(Tensor.empty(n, device=comm.device), -2.0)
            found = out.to("cpu").numpy()
        for rank in range(comm.size):
            assert (found[rank] == rank + 4).all()


def works_that_nobody_waits_for(comm):
    n = 1 << 22
    for turn in range(4):
        x = on(comm, np.full(n, comm.rank + turn, np.float32))
        comm.all_reduce(x, blocking=False)
        del x
        equal(on(comm, np.full(n, 7, np.float32)), np.full(n, 7, np.float32))


def counters(comm):
    x, out = empty(comm, (100,)), empty(comm, (comm.size, 100))
    before = comm.bytes_sent
    comm.all_gather(out, x)
    comm.reduce_scatter(x, out)
    comm.all_reduce(x)
    others = comm.size - 1
    assert comm.bytes_sent - before == 2 * others * 400 + 2 * others * 400 // comm.size


def objects(comm):
    assert comm.gather_objects({"rank": comm.rank}) == [{"rank": r} for r in range(comm.size)]
    comm.agree("the same", (1, "two"))
    with pytest.raises(longnet.ConfigError, match="tokens: found 101 on rank 1, expected 100 as"):
        comm.agree("tokens", 100 + (comm.rank == 1))


def split(comm):
    turned = comm.split(0, key=-comm.rank)
    assert (turned.rank, turned.size) == (comm.size - 1 - comm.rank, comm.size)
    out = empty(comm, (comm.size, 3))
    turned.all_gather(out, on(comm, data(comm.rank, (3,))))
    equal(out, everywhere(comm, (3,))[::-1])
    alone = comm.split(comm.rank)
    assert (alone.rank, alone.size) == (0, 1)
    alone.all_reduce(x := on(comm, data(comm.rank, (3,))))
    equal(x, data(comm.rank, (3,)))
    assert (comm.split(None if comm.rank == 0 else 5) is None) == (comm.rank == 0)
    turned.close()


def wrong_arguments(comm):
    """Refused before anything is sent, so that the next call finds all in order."""
    x, out = empty(comm, (4,)), empty(comm, (comm.size, 4))
    for error, call in [
        (longnet.ShapeError, lambda: comm.all_gather(x, x)),
        (longnet.DTypeError, lambda: comm.all_gather(empty(comm, (comm.size, 4), "int32"), x)),
        (longnet.DeviceError, lambda: comm.all_reduce(Tensor(np.zeros(3, np.float32)))),
        (longnet.ShapeError, lambda: comm.all_reduce(out[:, ::2])),
        (longnet.LongNetError, lambda: comm.send(x, comm.size)),
    ]:
        with pytest.raises(error):
            call()
    comm.all_gather(out, x)


METHODS = [
    *(all_gather, reduce_scatter, all_reduce, not_a_number_is_largest, broadcast, send_and_recv),
    *(exchange_of_unequal_sizes, streams_are_ordered, works_that_nobody_waits_for, counters),
    *(objects, split, wrong_arguments),
]


def report(name, start, error=""):
    seconds = round(time.monotonic() - start, 3)
    print(json.dumps({"name": name, "error": error, "seconds": seconds}), flush=True)


def methods(comm):
    for test in METHODS:
        start = time.monotonic()
        try:
            test(comm)
            report(test.__name__, start)
        except Exception:
            report(test.__name__, start, traceback.format_exc())


def expect_failure(call):
    start = time.monotonic()
    with pytest.raises(longnet.CommunicatorError) as failure:
        call()
    report("failure", start, str(failure.value))


def reduce_once(comm, blocking=True):
    """The first of this size makes NCCL's connections, which waits for all ranks."""
    return comm.all_reduce(empty(comm, (1 << 20,)), blocking=blocking)


def reduce_often(comm):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        reduce_once(comm)
        longnet.synchronize(comm.device)


def killed(comm):
    """Rank 1 dies; the others find out in whatever they do."""
    reduce_once(comm)
    longnet.synchronize(comm.device)
    comm.barrier()  # so that the other is done with the call above
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    expect_failure(lambda: reduce_often(comm))


def late(comm):
    """Rank 1 does not come."""
    reduce_once(comm)
    if comm.rank == 1:
        time.sleep(comm.timeout + 2)
    expect_failure(lambda: reduce_often(comm))


def aborted(comm):
    if comm.rank == 1:
        comm.abort("the disk is full")
    expect_failure(lambda: reduce_often(comm))


def told_at_the_end(comm):
    """Rank 0 finds out by close() alone that nobody came to its last collective."""
    reduce_once(comm)
    if comm.rank == 0:
        reduce_once(comm, blocking=False)
        expect_failure(comm.close)
    else:
        time.sleep(comm.timeout + 2)
        expect_failure(comm.barrier)


if __name__ == "__main__":
    scenario = sys.argv[1]
    timeout = 30 if scenario == "methods" else TIMEOUT
    with longnet.Communicator.from_environment("cuda", timeout) as comm:
        globals()[scenario](comm)
    print(json.dumps({"name": "closed"}), flush=True)
