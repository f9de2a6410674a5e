"""Attention over a sequence that passes through a device piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from longnet._core import DilatedAttention, Tensor
from longnet.arguments import integer
from longnet.communicator import Communicator
from longnet.errors import ConfigError, DTypeError, ShapeError
from longnet.parallel.agreement import agree_on_pattern
from longnet.parallel.arrays import dtype_of
from longnet.parallel.attention import attend
from longnet.parallel.job import Job
from longnet.parallel.segments import Segments
from longnet.parallel.traffic import Inputs, Results, Sink

NAME = "DilatedAttention.stream"


def stream(
    attention: DilatedAttention,
    q: Any,
    k: Any,
    v: Any,
    *,
    piece: int,
    out: Any = None,
    lse: Any = None,
    sink: Sink | None = None,
    device: str | None = None,
    comm: Communicator | None = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """See `longnet.DilatedAttention.stream`."""
    device = device or ("cpu" if comm is None else comm.device)

    def probes() -> tuple[list[Tensor], int]:
        _check(piece, q, k, v, out, lse)
        empty = [
            Tensor.empty((x.shape[0], 0, *x.shape[2:]), dtype_of(x), device) for x in (q, k, v)
        ]
        return empty, q.shape[1]

    options: dict[str, Any] = {"lengths": lengths, "cu_seqlens": cu_seqlens, "seed": seed}
    pattern = agree_on_pattern(NAME, attention, comm, probes, **options)
    if out is None and lse is None and sink is None:
        B, N, H, _ = q.shape
        out = np.empty(q.shape, Tensor.empty(0, dtype_of(q)).numpy().dtype)
        lse = np.empty((B, H, N), np.float32)
    job = Job(
        attention=attention,
        comm=Communicator.threads(1)[0] if comm is None else comm,
        pattern=pattern,
        piece=piece,
        batch=q.shape[0],
        head_dim=q.shape[3],
        dtype=dtype_of(q),
        device=Tensor.empty(0, "uint8", device).device,
        seed=seed,
    )
    _run(job, Inputs(job.device, q, k, v), Results(job.device, out, lse, sink), k, v)
    return out, lse


def _run(job: Job, inputs: Inputs, results: Results, k: Any, v: Any) -> None:
    """Pass all pieces through the device: while it works on one, the next one comes and the last
    one's results leave."""
    segments = Segments(job)
    segments.gather(k, v)
    offset = job.rows[0]
    pieces = list(job.pieces())
    ahead = [inputs.fetch(begin - offset, end - offset) for begin, end in pieces[:1]]
    for i, (begin, end) in enumerate(pieces):
        q_rows, k_rows, v_rows = ahead.pop()
        inputs.arrive()
        shard = job.shard(begin, end)
        segments.add(shard, k_rows, v_rows)
        arrive = partial(segments.keys, shard)
        found = attend(shard, q_rows, k_rows, v_rows, arrive, job.dtype)
        segments.close(shard)
        results.put(begin - offset, found[0], found[1])
        del found
        if i + 1 < len(pieces):
            following = pieces[i + 1]
            results.finish(1)
            ahead.append(inputs.fetch(following[0] - offset, following[1] - offset))
    results.finish(0)


def _check(piece: int, q: Any, k: Any, v: Any, out: Any, lse: Any) -> None:
    """Raise where arrays do not fit each other."""
    if integer("piece", piece) < 1:
        raise ConfigError(f"{NAME}: piece: found {piece}, expected 1 or more")
    for name, x in (("q", q), ("k", k), ("v", v)):
        if len(x.shape) != 4:
            raise ShapeError(f"{NAME}: {name}: found shape {tuple(x.shape)}, expected (B, N, H, D)")
    B, N, H, D = q.shape
    _like("k", k, (B, N, k.shape[2], D), dtype_of(q))
    _like("v", v, k.shape, dtype_of(q))
    if out is not None:
        _like("out", out, q.shape, dtype_of(q))
    if lse is not None:
        _like("lse", lse, (B, H, N), "float32")


def _like(name: str, x: Any, shape: Sequence[int], dtype: str) -> None:
    if tuple(x.shape) != tuple(shape):
        raise ShapeError(f"{NAME}: {name}: found {tuple(x.shape)}, expected {tuple(shape)}")
    if dtype_of(x) != dtype:
        raise DTypeError(f"{NAME}: {name}: found {dtype_of(x)}, expected {dtype}")
