"""Dilated attention of one sequence over many ranks, composed of calls on parts of it.

Levels whose segments lie inside the shard run in one call each group; of a segment that crosses the
shard's ends the rows that take part are packed, keys and values of other ranks fetched, and the
result is merged by its softmax denominator. What is computed is what one call on the whole sequence
computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from longnet._core import DilatedAttention, Tensor, ops
from longnet.communicator import Communicator
from longnet.parallel.agreement import plan_call
from longnet.parallel.compact import Shard, with_levels, zeros
from longnet.parallel.crossing import Crossing
from longnet.parallel.messages import start_gradients, start_keys
from longnet.parallel.plan import Local


def forward(
    attention: DilatedAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    comm: Communicator,
    lengths: Any = None,
    cu_seqlens: Any = None,
    seed: int = 0,
) -> tuple[Tensor, ...]:
    """Attention of this rank's shard.

    Parameters
    ----------
    attention : DilatedAttention
    q : Tensor (B, L, H, D)
        Contiguous, on the communicator's device; L may differ between ranks and be 0.
    k, v : Tensor (B, L, Hk, D)
    comm : Communicator
        Its ranks hold the sequence in their order.
    lengths, cu_seqlens, seed
        Of the whole sequence, the same on all ranks.

    Returns
    -------
    out : Tensor (B, L, H, D)
    lse : Tensor (B, H, L) float32
    *keys : Tensor
        What arrived of other ranks, with which `backward` need not fetch it again.

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ConfigError
        On every rank, if anything is wrong on one or they differ in what must be the same.
    CommunicatorError
    """
    options: dict[str, Any] = {"lengths": lengths, "cu_seqlens": cu_seqlens, "seed": seed}
    plan = plan_call("DilatedAttention.forward", attention, comm, (q, k, v), **options)
    shard = Shard(attention, comm, plan, q.shape[0], q.shape[2], seed)
    # a sum of two parts is rounded once, of more it would be with each part
    dtype = "float32" if len(plan.locals) + len(plan.looking) > 2 else q.dtype
    return attend(shard, q, k, v, start_keys(shard, k, v), dtype)


def attend(
    shard: Shard,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    arrive: Callable[[], Sequence[Tensor]],
    dtype: str,
) -> tuple[Tensor, ...]:
    """Attention of a shard's rows, as its plan says.

    Parameters
    ----------
    shard : Shard
    q, k, v
        As `forward` takes them.
    arrive : function
        Returns compact keys and values of each crossing segment that queries look at; called when
        the levels inside the shard are queued.
    dtype : str
        That outputs of levels are merged in: 'float32' or that of q.

    Returns
    -------
    out, lse, *keys
        As `forward` returns them.
    """
    plan = shard.plan
    B, L, H, _ = q.shape
    out: Tensor | None = None
    for local in plan.locals:
        part, part_lse = _local_attention(shard, local).forward(
            *(_rows(shard, local, x) for x in (q, k, v)), **_local_options(shard, local)
        )
        if out is None and local.end - local.begin == L:
            out, lse = _cast(part, dtype), part_lse
            del part  # the next call needs the room
            continue
        if out is None:
            out, lse = _nothing(q, dtype)
        flat = Tensor.empty((B * H, part.shape[1], q.shape[3]), q.dtype, q.device)
        ops.gather_rows(flat, part, [0] * H, 1)
        part_lse = part_lse.reshape(B * H, -1)
        ops.merge_rows(out, lse, flat, part_lse, [local.begin - plan.begin] * H, 1)
    if out is None:
        out, lse = _nothing(q, dtype)
    keys = arrive()
    for crossing, k_c, v_c in _with_keys(shard, keys):
        compact, compact_options = shard.compact_attention(crossing)
        part, part_lse = compact.forward(shard.gather(crossing, q), k_c, v_c, **compact_options)
        part = part.reshape(B * H, part.shape[1], q.shape[3])
        part_lse = part_lse.reshape(B * H, part.shape[1])
        shard.clear(crossing, part_lse, crossing.windows[plan.rank][0], -np.inf)
        starts = crossing.starts(plan.rank, plan.begin)
        ops.merge_rows(out, lse, part, part_lse, starts, crossing.step)
    return _cast(out, q.dtype), lse, *keys


def backward(
    attention: DilatedAttention,
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    comm: Communicator,
    keys: Sequence[Tensor] | None = None,
    lengths: Any = None,
    cu_seqlens: Any = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of this rank's shard.

    Parameters
    ----------
    attention, q, k, v, comm, lengths, cu_seqlens, seed
        As `forward` had them.
    dout : Tensor (B, L, H, D)
    out, lse : Tensor
        What `forward` gave.
    keys : sequence of Tensor, optional
        Likewise; fetched again by default.

    Returns
    -------
    dq : Tensor (B, L, H, D)
    dk, dv : Tensor (B, L, Hk, D)

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ConfigError, CommunicatorError
        As `forward` does.
    """
    tensors = (dout, q, k, v, out, lse)
    options: dict[str, Any] = {"lengths": lengths, "cu_seqlens": cu_seqlens, "seed": seed}
    plan = plan_call("DilatedAttention.backward", attention, comm, tensors, **options)
    shard = Shard(attention, comm, plan, q.shape[0], q.shape[2], seed)
    # what is added up is rounded once, when it is the whole
    dtype = "float32" if plan.gradient_parts() > 1 else q.dtype
    if keys is None:
        keys = start_keys(shard, k, v)()
    found = []
    for crossing, k_c, v_c in _with_keys(shard, keys):
        compact, compact_options = shard.compact_attention(crossing)
        dout_c, q_c, out_c = (shard.gather(crossing, x) for x in (dout, q, out))
        lse_c = shard.gather(crossing, lse)
        first = crossing.windows[plan.rank][0]
        shard.clear(crossing, lse_c, first, -np.inf)
        for x in (dout_c, q_c):  # times a probability of 0, rows past `lengths` may be NaN
            shard.clear(crossing, x, first)
        lse_c = lse_c.reshape(lse_c.shape[0], 1, lse_c.shape[1])
        inputs = dout_c, q_c, k_c, v_c, out_c, lse_c
        parts = compact.backward(*inputs, dtype="float32", **compact_options)
        for x in parts[1:]:
            shard.clear(crossing, x, 0)
        found.append(parts)
    arrive = start_gradients(shard, [(dk_c, dv_c) for _, dk_c, dv_c in found], k)
    gradients = _local_gradients(shard, tensors, dtype)
    for crossing, (dq_c, _, _) in zip(plan.looking, found, strict=True):
        dq_c = dq_c.reshape(dq_c.shape[0], dq_c.shape[1], dq_c.shape[3])
        starts = crossing.starts(plan.rank, plan.begin)
        ops.add_rows(gradients[0], dq_c, starts, crossing.step)
    for crossing, pair in arrive():
        starts = crossing.starts(plan.rank, plan.begin)
        for x, part in zip(gradients[1:], (pair[0], pair[1]), strict=True):
            ops.add_rows(x, part, starts, crossing.step)
    dq, dk, dv = (_cast(gradients.pop(0), q.dtype) for _ in range(3))
    return dq, dk, dv


def _with_keys(shard: Shard, keys: Sequence[Tensor]) -> Iterator[tuple[Crossing, Tensor, Tensor]]:
    """Each crossing segment that queries look at, its keys and its values."""
    return zip(shard.plan.looking, keys[::2], keys[1::2], strict=True)


def _nothing(q: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Output and LSE of queries (B, L, H, D) that see no key."""
    B, L, H, _ = q.shape
    lse = Tensor.empty((B, H, L), "float32", q.device)
    ops.fill(lse, -np.inf)
    return zeros(q.shape, dtype, q.device), lse


def _rows(shard: Shard, local: Local, x: Tensor) -> Tensor:
    """The rows of x (B, L, ...) that a local call takes."""
    first, last = local.begin - shard.plan.begin, local.end - shard.plan.begin
    if (first, last) == (0, x.shape[1]):
        return x
    rows = x[:, first:last]
    return rows if rows.is_contiguous else rows.copy()


def _local_attention(shard: Shard, local: Local) -> DilatedAttention:
    """The levels of a local call."""
    like = shard.attention
    return with_levels(
        like,
        [like.segment_lengths[i] for i in local.levels],
        [like.dilation_rates[i] for i in local.levels],
        offsets=like.offsets,
        zero_keys=like.zero_keys,
    )


def _local_options(shard: Shard, local: Local) -> dict[str, Any]:
    """The options of a local call."""
    options: dict[str, Any] = {
        "dropout_origin": (local.begin, local.levels[0]),
        "seed": shard.seed,
    }
    for name in ("lengths", "cu_seqlens"):
        numbers = getattr(local, name)
        if numbers is not None:
            options[name] = np.array(numbers, np.int64)
    return options


def _local_gradients(shard: Shard, tensors: Sequence[Tensor], dtype: str) -> list[Tensor]:
    """dq, dk and dv of the local calls, from dout, q, k, v, out and lse of the shard."""
    q, lse = tensors[1], tensors[-1]
    B, L = q.shape[:2]
    gradients: list[Tensor] | None = None
    for local in shard.plan.locals:
        first, last = local.begin - shard.plan.begin, local.end - shard.plan.begin
        lse_rows = lse if last - first == L else lse[:, :, first:last].copy()
        inputs = [*(_rows(shard, local, x) for x in tensors[:-1]), lse_rows]
        options = _local_options(shard, local)
        parts = _local_attention(shard, local).backward(*inputs, dtype=dtype, **options)
        if gradients is None and last - first == L:
            gradients = list(parts)
            continue
        if gradients is None:
            gradients = _zero_gradients(tensors, dtype)
        for gradient, part in zip(gradients, parts, strict=True):
            for b in range(B):
                rows = gradient[b, first:last]
                ops.add(rows, rows, part[b], 1.0)
    return _zero_gradients(tensors, dtype) if gradients is None else gradients


def _zero_gradients(tensors: Sequence[Tensor], dtype: str) -> list[Tensor]:
    return [zeros(x.shape, dtype, x.device) for x in tensors[1:4]]


def _cast(x: Tensor, dtype: str) -> Tensor:
    if x.dtype == dtype:
        return x
    out = Tensor.empty(x.shape, dtype, x.device)
    ops.cast(out, x)
    return out
