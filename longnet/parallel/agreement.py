"""What the ranks of one call must have in common, told before any transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from longnet._core import DilatedAttention, Tensor, ops
from longnet.communicator import Communicator
from longnet.errors import ConfigError, DeviceError, LongNetError, ShapeError
from longnet.parallel.pattern import Pattern
from longnet.parallel.plan import Plan, make_plan


def plan_call(
    name: str,
    attention: DilatedAttention,
    comm: Communicator,
    tensors: Sequence[Tensor],
    *,
    lengths: Any,
    cu_seqlens: Any,
    seed: int,
) -> Plan:
    """Check a call with all ranks and say what this one computes.

    Parameters
    ----------
    name : str
        Begins messages.
    attention : DilatedAttention
    comm : Communicator
    tensors : sequence of Tensor
        q, k, v of this shard; for backward dout, q, k, v, out, lse.
    lengths, cu_seqlens : array or None
        Of the whole sequence.
    seed : int
        Of dropout.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError
        `comm` is no communicator.
    ShapeError, DTypeError, DeviceError, ConfigError
        What is wrong with this rank's arguments; on the other ranks a ConfigError that names the
        rank and says so. ConfigError on every rank where they differ in what must be the same.
    """
    pattern = agree_on_pattern(
        name,
        attention,
        comm,
        lambda: (tensors, tensors[1].shape[1]),  # of k, or of q
        lengths=lengths,
        cu_seqlens=cu_seqlens,
        seed=seed,
    )
    return make_plan(pattern, comm.rank)


def agree_on_pattern(
    name: str,
    attention: DilatedAttention,
    comm: Communicator | None,
    inputs: Callable[[], tuple[Sequence[Tensor], int]],
    *,
    lengths: Any,
    cu_seqlens: Any,
    seed: int,
) -> Pattern:
    """Likewise, and say who sees whom.

    Parameters
    ----------
    name, attention, lengths, cu_seqlens, seed
        As above.
    comm : Communicator or None
        None for a rank alone.
    inputs : function
        Returns tensors as above, which may have fewer rows, and the rows of this shard; what it
        raises is told to all ranks.

    Returns
    -------
    Pattern

    Raises
    ------
    TypeError, ShapeError, DTypeError, DeviceError, ConfigError
        As above.
    """
    if comm is not None and not isinstance(comm, Communicator):
        raise TypeError(f"{name}: comm: found {comm!r}, expected a longnet.Communicator")
    error: LongNetError | None = None
    same: dict[str, Any] = {}
    rows = 0
    try:
        tensors, rows = inputs()
        same = _same(attention, comm, tensors, lengths, cu_seqlens, seed)
    except LongNetError as found:
        error = found
    mine = str(error) if error else None, same, rows
    others = [mine] if comm is None else comm.gather_objects(mine)
    if error is not None:
        raise error
    for rank, (message, _, _) in enumerate(others):
        if message is not None:
            raise ConfigError(f"{name}: rank {rank}: {message}")
    for what, value in same.items():
        if comm is not None and any(other[what] != value for _, other, _ in others):
            comm.agree(f"{name}: {what}", value)
    shards = tuple(rows for _, _, rows in others)
    _check_rows(name, same, sum(shards))
    levels = zip(attention.segment_lengths, attention.dilation_rates, strict=True)
    return Pattern(
        levels=tuple(levels),
        causal=attention.causal,
        zero_keys=attention.zero_keys,
        offsets=attention.offsets,
        dropout=attention.dropout > 0.0,
        heads=same["query heads"],
        shards=shards,
        lengths=same["lengths"] or None,
        cu_seqlens=same["cu_seqlens"],
    )


def _same(
    attention: DilatedAttention,
    comm: Communicator | None,
    tensors: Sequence[Tensor],
    lengths: Any,
    cu_seqlens: Any,
    seed: int,
) -> dict[str, Any]:
    """What must be equal everywhere, by name; raises where it is not even right alone."""
    _check_alone(attention, tensors)
    q, k = tensors[:2] if len(tensors) == 3 else tensors[1:3]
    if k.shape[1] != q.shape[1]:
        raise ShapeError(f"k: {k.shape[1]} rows, expected {q.shape[1]} as q has")
    if comm is not None and q.device != comm.device:
        raise DeviceError(f"q: on {q.device}, expected {comm.device}, the communicator's device")
    return {
        "attention": repr(attention),
        "batch": q.shape[0],
        "query heads": q.shape[2],
        "key/value heads": k.shape[2],
        "head dim": q.shape[3],
        "dtype": q.dtype,
        "seed": seed if attention.dropout else 0,
        "lengths": _integers("lengths", lengths),
        "cu_seqlens": _integers("cu_seqlens", cu_seqlens),
    }


def _check_alone(attention: DilatedAttention, tensors: Sequence[Tensor]) -> None:
    """What the op says to this shard alone."""
    pattern: dict[str, Any] = {
        "segment_lengths": attention.segment_lengths,
        "dilation_rates": attention.dilation_rates,
        "offsets": int(attention.offsets == "grouped"),
        "causal": attention.causal,
        "detached": attention.gradient == "detached",
        "zero_keys": attention.zero_keys,
        "deterministic": attention.deterministic,
        "scale": 1.0 if attention.scale is None else attention.scale,
        "dropout": attention.dropout,
        "seed": 0,
    }
    if len(tensors) == 3:
        q, k, v = tensors
        B, N, H = q.shape[:3] if q.ndim == 4 else (0, 0, 0)
        lse = Tensor.empty((B, H, N), "float32", q.device)
        ops.dilated_attention.check(q, lse, q, k, v, **pattern)
    else:
        dout, q, k, v, out, lse = tensors
        ops.dilated_attention_backward.check(q, k, v, dout, q, k, v, out, lse, **pattern)


def _integers(name: str, array: Any) -> tuple[int, ...] | None:
    if array is None:
        return None
    values = np.asarray(array.to("cpu") if isinstance(array, Tensor) else array)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ConfigError(
            f"{name}: {values.dtype} of shape {values.shape}, expected integers of one dimension"
        )
    return tuple(values.tolist())


def _check_rows(name: str, same: dict[str, Any], N: int) -> None:
    """`lengths` and `cu_seqlens` fit the batch and the N rows of all shards together."""
    lengths, cu_seqlens, B = same["lengths"], same["cu_seqlens"], same["batch"]
    if lengths is not None and cu_seqlens is not None:
        raise ConfigError(f"{name}: both lengths and cu_seqlens, expected at most one of them")
    if lengths is not None:
        if len(lengths) != B:
            raise ConfigError(f"{name}: {len(lengths)} lengths, expected {B}")
        for b, n in enumerate(lengths):
            if not 0 <= n <= N:
                raise ConfigError(f"{name}: lengths[{b}] is {n}, expected 0 to {N}, of all shards")
    if cu_seqlens is not None:
        if B != 1:
            raise ConfigError(f"{name}: cu_seqlens with a batch of {B}, expected 1")
        ends = (cu_seqlens[0], cu_seqlens[-1]) if cu_seqlens else None
        if ends != (0, N) or any(a > b for a, b in pairwise(cu_seqlens)):
            raise ConfigError(
                f"{name}: cu_seqlens from {ends and ends[0]} to {ends and ends[1]}, expected "
                f"numbers that do not fall, from 0 to {N}, the rows of all shards"
            )
