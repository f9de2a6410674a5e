"""A sequence over ranks: random shards, and cases of attention computed by them."""

from dataclasses import asdict

import numpy as np
from attention_cases import Case
from ranks import run_threads


def random_shards(rng: np.random.Generator, n: int, size: int) -> tuple[int, ...]:
    """Rows of each of `size` ranks, n together: alike, or of any lengths, 0 and 1 among them."""
    if rng.random() < 0.3:
        cuts = np.arange(1, size) * n // size
    elif rng.random() < 0.5:
        cuts = np.sort(rng.integers(0, n + 1, size - 1))
    else:
        cuts = np.sort(rng.choice([0, n // 3, n // 3 + 1, n // 2, n - 1, n], size - 1))
    return tuple(np.diff([0, *cuts, n]).tolist())


def on_shards(call, shards: tuple[int, ...]) -> list:
    """``call(comm, rows)`` on one rank a shard, `rows` being its slice of the sequence."""
    bounds = np.cumsum([0, *shards])
    return run_threads(
        len(shards), lambda comm: call(comm, slice(bounds[comm.rank], bounds[comm.rank + 1]))
    )


def results(outcomes: list) -> list:
    """What the ranks returned; raises what one of them raised."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def sharded(case: Case, shards: tuple[int, ...]) -> tuple[tuple, list[tuple[int, int]]]:
    """Out, lse, dq, dk and dv of the whole sequence, each rank having computed its shard; and for
    each rank the bytes that arrived in forward and in backward."""
    import longnet

    attention = longnet.DilatedAttention(**asdict(case.pattern))
    whole = case.q, case.k, case.v, case.dout

    def call(comm, rows):
        q, k, v, dout = (np.ascontiguousarray(x[:, rows]) for x in whole)
        out, lse = attention.forward(q, k, v, comm=comm, **case.options)
        received = comm.bytes_received
        found = attention.backward(dout, q, k, v, out, lse, comm=comm, **case.options)
        return (out, lse, *found), (received, comm.bytes_received - received)

    ranks = results(on_shards(call, shards))
    parts = zip(*(found for found, _ in ranks), strict=True)
    joined = tuple(np.concatenate(p, axis=2 if i == 1 else 1) for i, p in enumerate(parts))
    return joined, [received for _, received in ranks]
