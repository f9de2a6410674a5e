"""The fixed pattern of the Sparse Transformer."""

from typing import Any

import numpy as np

from longnet._core import Tensor
from longnet.attention import DilatedAttention
from longnet.autograd import Variable, record
from longnet.communicator import Communicator
from longnet.errors import ConfigError
from longnet.functional.buffers import cast_to, zeros
from longnet.functional.fixed_rows import FixedPattern, FixedRows
from longnet.functional.shard import Shard
from longnet.functional.summaries import Summaries
from longnet.kept import keep
from longnet.random import derive_seed


def fixed_attention(
    q: Variable,
    k: Variable,
    v: Variable,
    block: int,
    columns: int,
    *,
    lengths: np.ndarray | Tensor | None = None,
    cu_seqlens: np.ndarray | Tensor | None = None,
    seed: int = 0,
    comm: Communicator | None = None,
    **options: Any,
) -> Variable:
    r"""Causal attention to the query's own block and to summary columns of the blocks before it.

    The "fixed" pattern of Child et al. (arXiv 1904.10509, section 4.3) with both of its sets in
    each head: query i sees the keys j <= i with

    .. math:: \lfloor j / l \rfloor = \lfloor i / l \rfloor \quad\text{or}\quad
        l - (g + 1) c \le j \bmod l < l - g c

    where l is `block`, c is `columns`, and head h has :math:`g = h \bmod \lfloor l / c \rfloor`: as
    there, heads have summary columns of their own.

    Parameters
    ----------
    q : Variable (B, N, H, D)
    k, v : Variable (B, N, Hk, D)
        H a multiple of Hk.
    block, columns : int
        l, and c from 1 to l.
    lengths : array (B,) int64, optional
        Rows that exist; outputs past them are 0.
    cu_seqlens : array (S+1,) int64, optional
        Where documents packed end to end begin, and N; blocks begin anew there. Needs B = 1.
    seed : int
        Of dropout.
    comm : Communicator, optional
        Its ranks hold the sequence in their order, each N rows of it; `lengths`, `cu_seqlens` and
        `seed` are the whole sequence's. The rows before a rank's own in the block of its first row,
        and the columns of earlier blocks, come from the ranks that have them. Every rank calls, and
        differentiates, in the same order.
    **options
        `scale`, `dropout` and `deterministic`, as `DilatedAttention` takes them.

    Returns
    -------
    Variable (B, N, H, D)

    Raises
    ------
    ShapeError, DTypeError, DeviceError, ConfigError
        Something does not fit; with `comm` on every rank.
    """
    data = q.data, k.data, v.data

    def make() -> DilatedAttention:
        attention = DilatedAttention([block], [1], **options)
        if not 1 <= columns <= block:
            raise ConfigError(
                f"fixed_attention: found {columns} columns, expected 1 to {block}, the block"
            )
        return attention

    shard = Shard.agreed(
        "fixed_attention",
        make,
        comm,
        data,
        lambda n: n % block,
        lengths=lengths,
        cu_seqlens=cu_seqlens,
        seed=seed,
    )
    if comm is not None:
        comm.agree("fixed_attention: columns", columns)
    pattern = FixedPattern(q.shape[2], block, columns)
    entries = [entry for entry in shard.span.sequences.entries() if entry[1] < entry[2]]
    summaries = Summaries(pattern, shard, entries)
    parts = [
        FixedRows(pattern, shard.span, entry, derive_seed(seed, i), options)
        for i, entry in enumerate(entries)
    ]
    counts = [len(list(part.parts())) for part in parts]

    def forward() -> tuple[Tensor, ...]:
        halo, packed = shard.fetch(*data[1:]), summaries.fetch(*data[1:])
        keys, whole = shard.extend(data[1:], halo), summaries.columns(*data[1:], packed)
        out, lses = zeros(q.shape, data[0]), []
        for part, own in zip(parts, whole, strict=True):
            lses += part.forward(data[0], keys, own, out)
        return out, *lses, *halo, *packed

    out, *kept = keep(forward)

    def backward(dout: Tensor) -> list[Tensor]:
        lses, arrived = iter(kept), kept[sum(counts) :]
        halo, packed = arrived[: 2 * len(shard.borrowed)], arrived[2 * len(shard.borrowed) :]
        keys, whole = shard.extend(data[1:], halo), summaries.columns(*data[1:], packed)
        gradients = [zeros(x.shape, x, "float32") for x in (data[0], *keys)]
        sums = []
        for part, own, count in zip(parts, whole, counts, strict=True):
            blocks = [next(lses) for _ in range(count)]
            sums.append(part.backward((dout, data[0], out), keys, own, blocks, gradients))
        gradients[1:] = shard.give_back(*gradients[1:])
        summaries.give_back(sums, gradients[1:])
        return [cast_to(x, q.dtype) for x in gradients]

    return record(out, [q, k, v], backward)
