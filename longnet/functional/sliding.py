"""A sliding window, composed of ordinary causal attention inside blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.autograd import Variable, record
from longnet.functional.buffers import empty
from longnet.functional.sequences import sequences
from longnet.kept import keep
from longnet.random import derive_seed

Part = tuple[slice, int, int, int]  # batch items, first key, queries, keys


def sliding_attention(
    q: Variable,
    k: Variable,
    v: Variable,
    window: int,
    *,
    lengths: np.ndarray | Tensor | None = None,
    cu_seqlens: np.ndarray | Tensor | None = None,
    seed: int = 0,
    **options: Any,
) -> Variable:
    """Attention of each query to the `window` last keys, its own row's among them.

    Of blocks of ``b = window - 1`` rows, row i of a block sees the rows up to i of its own block,
    and of the block before those from i on. The first is causal attention inside blocks. The second
    is that too, of queries to the keys b rows before theirs, when all rows stand in reversed order.
    The two have no key in common and are merged by their softmax denominators.

    Parameters
    ----------
    q : Variable (B, N, H, D)
    k, v : Variable (B, N, Hk, D)
        H a multiple of Hk.
    window : int
        Keys that a query sees, at least 1; fewer at the begin of the sequence.
    lengths : array (B,) int64, optional
        Rows that exist; outputs past them are 0.
    cu_seqlens : array (S+1,) int64, optional
        Where documents packed end to end begin, and N. Needs B = 1.
    seed : int
        Of dropout.
    **options
        `scale`, `dropout` and `deterministic`, as `DilatedAttention` takes them.

    Returns
    -------
    Variable (B, N, H, D)
    """
    data = q.data, k.data, v.data
    block = window - 1
    attention = DilatedAttention([max(1, block)], [1], **options)
    own: dict[str, Any] = {"lengths": lengths, "cu_seqlens": cu_seqlens, "seed": seed}
    before: dict[str, Any] = {"seed": derive_seed(seed, "the block before")}
    parts = list(_parts(sequences(q.data, lengths, cu_seqlens), block))

    def forward() -> tuple[Tensor, ...]:
        out, lse = attention.forward(*data, **own)
        for part in parts:
            inputs = _reversed_inputs(part, block, *data)
            found, found_lse = attention.forward(*inputs, query_start=_skipped(part), **before)
            _merge(out, lse, part, block, found, found_lse)
        return out, lse

    out, lse = keep(forward)

    def backward(dout: Tensor) -> list[Tensor]:
        gradients = attention.backward(dout, *data, out, lse, **own)
        for part in parts:
            items, first, count, _ = part
            rows = slice(first + block, first + block + count)
            inputs = _reversed_inputs(part, block, *data)
            dout_part, out_part = (_reverse(x[items, rows]) for x in (dout, out))
            lse_part = lse[items, :, rows][:, :, ::-1].copy()
            found = attention.backward(
                dout_part, *inputs, out_part, lse_part, query_start=_skipped(part), **before
            )
            for gradient, x, begin in zip(
                gradients, found, (first + block, first, first), strict=True
            ):
                _add(gradient[items], begin, _reverse(x))
        return list(gradients)

    return record(out, [q, k, v], backward)


def _parts(found: list[tuple[slice, int, int]], block: int) -> Iterator[Part]:
    """Where queries have keys in the block before theirs."""
    for items, begin, end in found:
        count = end - begin - block
        if block > 0 and count > 0:
            yield items, begin, count, -(-count // block) * block


def _skipped(part: Part) -> int:
    """Keys at the begin of the reversed order that no row of `q` stands beside."""
    _, _, queries, keys = part
    return keys - queries


def _reversed_inputs(
    part: Part, block: int, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    items, first, queries, keys = part
    return (
        _reverse(q[items, first + block : first + block + queries]),
        _reverse(k[items, first : first + keys]),
        _reverse(v[items, first : first + keys]),
    )


def _reverse(x: Tensor) -> Tensor:
    return x[:, ::-1].copy()


def _merge(
    out: Tensor, lse: Tensor, part: Part, block: int, found: Tensor, found_lse: Tensor
) -> None:
    items, first, count, _ = part
    B, _, H, D = found.shape
    by_head = empty((B * H, count, D), found)
    ops.gather_rows(by_head, _reverse(found), [0] * H, 1)
    by_head_lse = found_lse[:, :, ::-1].copy().reshape(B * H, count)
    ops.merge_rows(out[items], lse[items], by_head, by_head_lse, [first + block] * H, 1)


def _add(x: Tensor, begin: int, part: Tensor) -> None:
    """Add part (B, M, H, D) to the rows of x (B, N, H, D) from `begin` on."""
    for b in range(x.shape[0]):
        rows = x[b, begin : begin + part.shape[1]]
        ops.add(rows, rows, part[b], 1.0)
