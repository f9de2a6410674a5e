"""What travels between ranks: compact keys and values, and their gradients on the way back.

A message is (2, B*H, W, D): one rank's window of a crossing segment, keys then values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from longnet._core import Tensor, ops
from longnet.parallel.compact import Shard, zeros
from longnet.parallel.crossing import Crossing

Message = tuple[int, Tensor]  # the rank whose window it is (or that sends it), and (2, B*H, W, D)
Keys = list[Tensor]  # compact keys and values of each crossing segment that queries look at


def start_keys(shard: Shard, k: Tensor, v: Tensor) -> Callable[[], Keys]:
    """Send and fetch the crossing segments' rows of k and v (B, L, Hk, D), all in one exchange.

    Returns
    -------
    function
        Waits for them.
    """
    plan = shard.plan
    own = []
    for crossing in plan.crossings:
        message = _message(shard, crossing, plan.rank, k, k.dtype)
        for part, x in zip((message[0], message[1]), (k, v), strict=True):
            ops.gather_rows(part, x, crossing.starts(plan.rank, plan.begin), crossing.step)
        own.append(message)
    return exchange_keys(shard, own)


def exchange_keys(shard: Shard, own: Sequence[Tensor]) -> Callable[[], Keys]:
    """Likewise, of this rank's window (2, B*H, W, D) of each crossing segment."""
    plan = shard.plan
    sends: list[Message] = []
    receives: list[Message] = []
    for crossing, message in zip(plan.crossings, own, strict=True):
        sends += [(reader, message) for reader in crossing.readers]
        receives += [
            (rank, _message(shard, crossing, rank, message, message.dtype))
            for rank in crossing.sources
        ]
    work = shard.comm.exchange(sends, receives, blocking=False)

    def finish() -> Keys:
        if work is not None:
            work.wait()
        arrived = iter(receives)
        keys: Keys = []
        for crossing, message in zip(plan.crossings, own, strict=True):
            parts = [(plan.rank, message), *islice(arrived, len(crossing.sources))]
            if crossing.keys:
                keys += _assemble(shard, crossing, parts)
        return keys

    return finish


def start_gradients(
    shard: Shard, gradients: Sequence[tuple[Tensor, Tensor]], like: Tensor
) -> Callable[[], list[tuple[Crossing, Tensor]]]:
    """Send the gradients of other ranks' compact keys and values home, and fetch this rank's.

    Parameters
    ----------
    shard : Shard
    gradients : sequence of (compact tensor, compact tensor)
        Of keys and of values, float32, for each crossing segment that queries look at.
    like : Tensor (B, L, Hk, D)
        The keys.

    Returns
    -------
    function
        Waits, and returns crossing segments and what they add to this rank's rows: a message.
    """
    plan, given = shard.plan, iter(gradients)
    own: list[list[Message]] = []
    sends: list[Message] = []
    receives: list[Message] = []
    for crossing in plan.crossings:
        own.append([])
        pair = next(given) if crossing.keys else ()
        for rank in (plan.rank, *crossing.sources) if pair else ():
            message = _message(shard, crossing, rank, like, "float32")
            for which, x in enumerate(pair):
                ops.gather_rows(message[which], x, [crossing.windows[rank][0]], 1)
            (own[-1] if rank == plan.rank else sends).append((rank, message))
        for reader in crossing.readers:
            message = _message(shard, crossing, plan.rank, like, "float32")
            receives.append((reader, message))
    work = shard.comm.exchange(sends, receives, blocking=False)

    def finish() -> list[tuple[Crossing, Tensor]]:
        if work is not None:
            work.wait()
        arrived = iter(receives)
        found = []
        for crossing, here in zip(plan.crossings, own, strict=True):
            parts = [*here, *islice(arrived, len(crossing.readers))]
            if parts:
                found.append((crossing, _sum([message for _, message in parts])))
        return found

    return finish


def _message(shard: Shard, crossing: Crossing, rank: int, like: Tensor, dtype: str) -> Tensor:
    """Room for the window of a rank, of the head dim and on the device of `like`."""
    shape = (2, shard.batch * shard.heads, crossing.rows(rank), like.shape[3])
    return Tensor.empty(shape, dtype, like.device)


def _assemble(shard: Shard, crossing: Crossing, parts: list[Message]) -> Keys:
    """All compact keys and values. Windows of neighbours may overlap in a row, which is zeros
    on the heads that it is not theirs on: they are added up."""
    found = []
    like = parts[0][1]
    rows = crossing.keys + max(crossing.zeros, default=0)
    for which in (0, 1):
        x = zeros((like.shape[1], rows, 1, like.shape[3]), like.dtype, like.device)
        for rank, message in parts:
            ops.add_rows(x, message[which], [crossing.windows[rank][0]], 1)
        shard.clear(crossing, x, 0)
        found.append(x)
    return found


def _sum(messages: list[Tensor]) -> Tensor:
    """The sum of float32 messages of one shape."""
    first = messages[0]
    if len(messages) == 1:
        return first
    flat = (first.shape[0] * first.shape[1], *first.shape[2:])
    total = zeros((flat[0], flat[1], 1, flat[2]), "float32", first.device)
    for message in messages:
        ops.add_rows(total, message.reshape(flat), [0], 1)
    return total.reshape(first.shape)
