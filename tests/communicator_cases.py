"""What every communicator must do: each case runs on all ranks at once, whatever their number."""

from __future__ import annotations

import inspect
import time
from functools import lru_cache

import ml_dtypes
import numpy as np
import pytest

import longnet

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int32, np.int64, np.uint8]
SHAPES = [(), (0, 3), (1,), (5, 3, 2), (5003,)]  # the last is reduced in two stages


@lru_cache(1000)
def drawn(rank: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng([seed, rank, *shape]).normal(scale=30, size=shape)


def values(rank: int, shape: tuple[int, ...], dtype: type, seed: int = 0) -> np.ndarray:
    """The same numbers for a rank wherever they are asked for."""
    return np.asarray(drawn(rank, shape, seed)).astype(np.float32).astype(dtype)


def poisoned(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = 0xEE
    return array


def total(parts: list[np.ndarray]) -> np.ndarray:
    """The sum in the order of ranks, of 16-bit floats in float32, rounded once."""
    dtype = parts[0].dtype
    wide = np.float32 if dtype.itemsize == 2 else dtype
    result = parts[0].astype(wide)
    for part in parts[1:]:
        result = (result + part.astype(wide)).astype(wide)
    return result.astype(dtype)


def inputs():
    return [(shape, dtype) for shape in SHAPES for dtype in DTYPES]


def same(found, expected) -> None:
    found = found.numpy() if isinstance(found, longnet.Tensor) else found
    assert found.dtype == expected.dtype
    if found.dtype.itemsize == 2:  # NumPy knows no NaN in bfloat16
        found, expected = (x.astype(np.float32) for x in (found, expected))
    np.testing.assert_array_equal(found, expected)


def all_gather(c):
    for shape, dtype in inputs():
        out = poisoned((c.size, *shape), dtype)
        assert c.all_gather(out, values(c.rank, shape, dtype)) is None
        same(out, np.stack([values(r, shape, dtype) for r in range(c.size)]))


def reduce_scatter(c):
    for shape, dtype in inputs():
        x, out = values(c.rank, (c.size, *shape), dtype), poisoned(shape, dtype)
        before = x.copy()
        assert c.reduce_scatter(out, x) is None
        same(x, before)
        same(out, total([values(r, (c.size, *shape), dtype)[c.rank, ...] for r in range(c.size)]))


def in_place(c):
    for shape, dtype in inputs():
        out = poisoned((c.size, *shape), dtype)
        out[c.rank] = values(c.rank, shape, dtype)
        c.all_gather(out, out[c.rank : c.rank + 1].reshape(shape))
        same(out, np.stack([values(r, shape, dtype) for r in range(c.size)]))
        x = values(c.rank, (c.size, *shape), dtype)
        c.reduce_scatter(x[c.rank : c.rank + 1].reshape(shape), x)
        expected = total([values(r, (c.size, *shape), dtype)[c.rank, ...] for r in range(c.size)])
        same(x[c.rank, ...], expected)


def all_reduce(c):
    for shape, dtype in inputs():
        parts = [values(r, shape, dtype) for r in range(c.size)]
        x, y = parts[c.rank].copy(), parts[c.rank].copy()
        assert c.all_reduce(x) is None
        same(x, total(parts))
        c.all_reduce(y, "max")
        same(y, np.asarray(np.max(np.stack(parts), axis=0)))


def all_reduce_nan_is_largest(c):
    for dtype in DTYPES[:3]:
        x = np.full(3, c.rank, dtype)
        x[1] = np.nan if c.rank == c.size // 2 else x[1]
        c.all_reduce(x, "max")
        same(x, np.array([c.size - 1, np.nan, c.size - 1], dtype))


def broadcast(c):
    for root in range(c.size):
        for shape, dtype in inputs():
            x = values(c.rank, shape, dtype, root)
            assert c.broadcast(x, root) is None
            same(x, values(root, shape, dtype, root))


def send_and_recv(c):
    """A chain: each rank adds its number and passes the sum on."""
    x = np.zeros(7, np.int64)
    if c.rank > 0:
        c.recv(x, c.rank - 1)
    x += c.rank
    if c.rank < c.size - 1:
        c.send(x, c.rank + 1)
    same(x, np.full(7, c.rank * (c.rank + 1) // 2))


def send_without_waiting(c):
    """A ring in which everybody sends first."""
    x, out = values(c.rank, (9000,), np.float32), poisoned((9000,), np.float32)
    if c.size == 1:
        c.exchange([(0, x)], [(0, out)])
    else:
        work = c.send(x, (c.rank + 1) % c.size, blocking=False)
        c.recv(out, (c.rank - 1) % c.size)
        work.wait()
    same(out, values((c.rank - 1) % c.size, (9000,), np.float32))


def exchange(c):
    """Several tensors to each rank, oneself too; sizes differ, some are zero."""

    def message(source, target, i):
        return values(source, ((source * 7 + target * 3 + i * 5) % 11, 13), DTYPES[i], target)

    ranks = [(peer, i) for i in range(3) for peer in range(c.size)]
    sends = [(peer, message(c.rank, peer, i)) for peer, i in ranks]
    expected = [message(peer, c.rank, i) for peer, i in ranks]
    receives = [
        (peer, poisoned(x.shape, x.dtype)) for (peer, _), x in zip(ranks, expected, strict=True)
    ]
    assert c.exchange(sends, receives) is None
    for (_, found), x in zip(receives, expected, strict=True):
        same(found, x)


def exchange_of_some(c):
    """Ranks with nothing to say stay away or come with nothing."""
    x = np.full(4, c.rank, np.int32)
    if c.size > 2 and c.rank == 0:
        c.exchange([(c.size - 1, x)], [])
    elif c.size > 2 and c.rank == c.size - 1:
        c.exchange([], [(0, x)])
        same(x, np.zeros(4, np.int32))
    elif c.rank % 2:
        c.exchange([], [])


def works_complete_in_any_order_of_waiting(c):
    """Reductions of two stages, an exchange and a broadcast, waited for in different orders."""
    n = 12345
    sums = [values(c.rank, (n,), np.float32, i) for i in range(3)]
    sent, received = values(c.rank, (n,), np.int64), poisoned((n,), np.int64)
    told = values(c.rank, (n,), np.uint8)
    ahead, behind = (c.rank + 1) % c.size, (c.rank - 1) % c.size
    works = [
        c.all_reduce(sums[0], blocking=False),
        c.exchange([(ahead, sent)], [(behind, received)], blocking=False),
        c.all_reduce(sums[1], blocking=False),
        c.broadcast(told, c.size - 1, blocking=False),
        c.all_reduce(sums[2], blocking=False),
    ]
    for work in np.random.default_rng(c.rank).permutation(works):
        work.wait()
        work.wait()
    for i, x in enumerate(sums):
        same(x, total([values(r, (n,), np.float32, i) for r in range(c.size)]))
    same(received, values(behind, (n,), np.int64))
    same(told, values(c.size - 1, (n,), np.uint8))


def every_method_without_blocking(c):
    x, gathered = values(c.rank, (9,), np.float32), poisoned((c.size, 9), np.float32)
    work = c.all_gather(gathered, x, blocking=False)
    assert isinstance(work, longnet.communicator.Work)
    work.wait()
    same(gathered, np.stack([values(r, (9,), np.float32) for r in range(c.size)]))
    part = poisoned((9,), np.float32)
    c.reduce_scatter(part, gathered, blocking=False).wait()
    same(part, total([gathered[c.rank]] * c.size))


def tensors(c):
    """longnet.Tensors as well as NumPy arrays, and parts of either."""
    x = longnet.Tensor(values(c.rank, (4, 6), ml_dtypes.bfloat16))
    out = longnet.Tensor(poisoned((c.size, 6), ml_dtypes.bfloat16))
    c.all_gather(out, x[2])
    same(out, np.stack([values(r, (4, 6), ml_dtypes.bfloat16)[2] for r in range(c.size)]))
    c.all_reduce(x[1:3])
    parts = [values(r, (4, 6), ml_dtypes.bfloat16) for r in range(c.size)]
    same(x[1:3], total([part[1:3] for part in parts]))
    same(x[3], parts[c.rank][3])


def the_same_bits_again(c):
    x, y = (values(c.rank, (9000,), np.float32) * np.float32(1e3 ** (c.rank % 3)) for _ in "ab")
    c.all_reduce(x)
    c.all_reduce(y)
    same(x, y)
    assert len({bytes(b) for b in c.gather_objects(x.tobytes())}) == 1


def barrier(c):
    before = time.time() + 0.05 if c.rank == 0 else 0.0
    while time.time() < before:
        time.sleep(0.001)
    c.barrier()
    assert time.time() >= max(c.gather_objects(before))


def gather_objects(c):
    found = c.gather_objects({"rank": c.rank, "name": "x" * c.rank * 1000})
    assert found == [{"rank": r, "name": "x" * r * 1000} for r in range(c.size)]


def agree(c):
    c.agree("model", {"layers": 3, "levels": [(2, 1)]})
    if c.size > 2:
        message = (
            f"^train.steps: found 8 on rank {c.size - 1}, expected 7 as on ranks "
            f"{', '.join(map(str, range(c.size - 1)))}$"
        )
        with pytest.raises(longnet.ConfigError, match=message):
            c.agree("train.steps", 8 if c.rank == c.size - 1 else 7)
    c.barrier()  # and all goes on


def split(c):
    part = c.split(c.rank % 3, key=-c.rank)
    members = [r for r in reversed(range(c.size)) if r % 3 == c.rank % 3]
    assert (part.rank, part.size) == (members.index(c.rank), len(members))
    assert (part.device, part.timeout) == (c.device, c.timeout)
    assert part.gather_objects(c.rank) == members
    x = np.array([c.rank], np.int64)
    part.all_reduce(x)
    same(x, np.array([sum(members)]))
    y = np.array([c.rank], np.int64)
    c.all_reduce(y)
    same(y, np.array([c.size * (c.size - 1) // 2]))
    again = part.split(0 if part.rank else None)
    if part.rank == 0:
        assert again is None
    else:
        assert again.gather_objects(c.rank) == members[1:]
        again.close()
    part.close()
    c.barrier()


def split_parts_do_not_mix(c):
    """Messages of two communicators of the same ranks are kept apart."""
    one, two = c.split(0), c.split(0)
    x, y = (values(c.rank, (501,), np.float32, i) for i in range(2))
    a, b = (poisoned((c.size, 501), np.float32) for _ in range(2))
    first, second = one.all_gather(a, x, blocking=False), two.all_gather(b, y, blocking=False)
    for work in (first, second) if c.rank % 2 else (second, first):
        work.wait()
    for out, i in ((a, 0), (b, 1)):
        same(out, np.stack([values(r, (501,), np.float32, i) for r in range(c.size)]))


def bytes_are_counted(c):
    others = c.size - 1
    x, out = np.ones((6, 4), np.float32), np.empty((c.size, 6, 4), np.float32)

    def counted(call) -> tuple[int, int]:
        before = c.bytes_sent, c.bytes_received
        call()
        return c.bytes_sent - before[0], c.bytes_received - before[1]

    assert counted(lambda: c.all_gather(out, x)) == (others * 96, others * 96)
    assert counted(lambda: c.reduce_scatter(x, out)) == (others * 96, others * 96)
    assert counted(lambda: c.all_reduce(x)) == (2 * others * 96 // c.size,) * 2
    expected = (others * 96, 0) if c.rank == 0 else (0, 96)
    assert counted(lambda: c.broadcast(x)) == expected
    assert counted(lambda: c.gather_objects(3)) == (0, 0)
    ring = [((c.rank + 1) % c.size, x), (c.rank, x)], [((c.rank - 1) % c.size, x), (c.rank, x)]
    assert counted(lambda: c.exchange(*ring)) == ((96, 96) if others else (0, 0))


def wrong_arguments_are_named_before_anything_is_sent(c):
    """Each is refused on one rank alone; what comes after shows that nobody has been waiting."""
    x, out = np.zeros((2, 3), np.float32), np.zeros((c.size, 2, 3), np.float32)
    fixed = out.copy()
    fixed.flags.writeable = False
    wrong = [
        (lambda: c.all_gather(out[:, :1].copy(), x), longnet.ShapeError, r"all_gather: out: found"),
        (lambda: c.all_gather(out.astype(np.int32), x), longnet.DTypeError, "expected float32"),
        (lambda: c.reduce_scatter(x, out[:, 1:].copy()), longnet.ShapeError, "reduce_scatter: x"),
        (lambda: c.all_reduce(x.T), longnet.ShapeError, "expected a contiguous tensor"),
        (lambda: c.all_reduce(x, "min"), longnet.ConfigError, "found 'min', expected 'sum'"),
        (lambda: c.all_reduce(x.astype(np.float64)), longnet.DTypeError, "float64"),
        (lambda: c.broadcast(x, c.size), longnet.CommunicatorError, f"root: found {c.size}"),
        (lambda: c.send(x, -1), longnet.CommunicatorError, "send: peer: found -1, expected 0 to"),
        (lambda: c.recv(x, c.size), longnet.CommunicatorError, "recv: peer: found"),
        (lambda: c.exchange([(c.rank, x)], []), longnet.ShapeError, "expected 1 as are sent"),
        (
            lambda: c.exchange([(c.rank, x)], [(c.rank, out)]),
            longnet.ShapeError,
            r"found float32 \(\d, 2, 3\), expected float32 \(2, 3\)",
        ),
        (lambda: c.send([1, 2], 0), longnet.DTypeError, "list"),
        (lambda: c.all_gather(fixed, x), longnet.ConfigError, "all_gather: out: read-only"),
        (lambda: c.reduce_scatter(fixed[0], out), longnet.ConfigError, "out: read-only"),
        (lambda: c.all_reduce(fixed), longnet.ConfigError, "all_reduce: x: read-only"),
        (lambda: c.broadcast(fixed), longnet.ConfigError, "broadcast: x: read-only"),
        (
            lambda: c.exchange([(c.rank, out)], [(c.rank, fixed)]),
            longnet.ConfigError,
            "exchange: x: read-only",
        ),
    ]
    if c.rank == c.size - 1:
        for call, error, message in wrong:
            with pytest.raises(error, match=message):
                call()
    c.barrier()


CASES = {
    name: case
    for name, case in list(globals().items())
    if inspect.isfunction(case) and list(inspect.signature(case).parameters) == ["c"]
}
