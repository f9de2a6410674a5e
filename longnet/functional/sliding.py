"""A sliding window, composed of ordinary causal attention inside blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.autograd import Variable, record
from longnet.communicator import Communicator
from longnet.errors import ConfigError
from longnet.functional.buffers import as_tensor, cast_to, empty, zeros
from longnet.functional.sequences import Span
from longnet.functional.shard import Shard, add_rows, put_rows
from longnet.kept import keep
from longnet.random import derive_seed


def sliding_attention(
    q: Variable,
    k: Variable,
    v: Variable,
    window: int,
    *,
    lengths: np.ndarray | Tensor | None = None,
    cu_seqlens: np.ndarray | Tensor | None = None,
    seed: int = 0,
    comm: Communicator | None = None,
    **options: Any,
) -> Variable:
    """Attention of each query to the `window` last keys, its own row's among them.

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
    comm : Communicator, optional
        Its ranks hold the sequence in their order, each N rows of it; `lengths`, `cu_seqlens` and
        `seed` are the whole sequence's. The `window` - 1 rows before a rank's own come from the
        ranks that have them. Every rank calls, and differentiates, in the same order.
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
        if window < 1:
            raise ConfigError(f"sliding_attention: found a window of {window}, expected at least 1")
        return DilatedAttention([window], [1], **options)

    shard = Shard.agreed(
        "sliding_attention",
        make,
        comm,
        data,
        lambda n: min(n, window - 1),
        lengths=lengths,
        cu_seqlens=cu_seqlens,
        seed=seed,
    )
    attention = DilatedAttention([max(1, window - 1)], [1], **options)
    rows = SlidingRows(attention, window - 1, shard.span, seed)

    def forward() -> tuple[Tensor, ...]:
        halo = shard.fetch(*data[1:])
        return *rows.forward(data[0], *shard.extend(data[1:], halo)), *halo

    out, lse, *halo = keep(forward)

    def backward(dout: Tensor) -> list[Tensor]:
        keys, values = shard.extend(data[1:], halo)
        dq, *others = rows.backward(dout, data[0], keys, values, out, lse)
        return [cast_to(x, q.dtype) for x in (dq, *shard.give_back(*others))]

    return record(out, [q, k, v], backward)


class SlidingRows:
    """A sliding window over the rows of a span, whose keys begin so many rows early.

    Of blocks of ``b = window - 1`` rows, row i of a block sees the rows up to i of its own block,
    and of the block before those from i on. The first is causal attention inside blocks. The second
    is that too, of queries to the keys b rows before theirs, when all rows stand in reversed order.
    The two have no key in common and are merged by their softmax denominators.

    Blocks are counted from the begin of a sequence, wherever the span begins, so that dropout draws
    the same words on any number of ranks.

    Parameters
    ----------
    attention : DilatedAttention
        Of one level, w = max(1, b) and r = 1.
    block : int
        b.
    span : Span
        `first` is b rows before `begin`, or where the sequence begins.
    seed : int
        Of dropout.
    """

    def __init__(self, attention: DilatedAttention, block: int, span: Span, seed: int = 0) -> None:
        self._attention = attention
        self._block = block
        self._span = span
        begin, end = span.begin, span.end
        aligned = begin - (begin - span.sequences.begin_of(begin)) % max(1, block)
        aligned = max(aligned, span.first)  # without queries there are no keys
        self._skipped = aligned - span.first  # keys that are of no block with a query
        self._own: dict[str, Any] = {
            **span.sequences.within(aligned, end),
            "query_start": begin - aligned,
            "dropout_origin": (aligned, 0),
            "seed": seed,
        }
        self._parts = list(_parts(span, block))
        self._seed = derive_seed(seed, "the block before")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and LSE of queries (B, end - begin, H, D) to keys and values
        (B, end - first, Hk, D)."""
        out, lse = self._attention.forward(q, *self._own_blocks(k, v), **self._own)
        for part in self._parts:
            inputs = self._reversed(part, q), *(self._reversed(part, x, keys=True) for x in (k, v))
            found, found_lse = self._attention.forward(*inputs, **self._before(part))
            self._merge(out, lse, part, found, found_lse)
        return out, lse

    def backward(
        self, dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
    ) -> list[Tensor]:
        """Return the gradients of q, k and v, float32: they are sums."""
        own_k, own_v = self._own_blocks(k, v)
        found = self._attention.backward(
            dout, q, own_k, own_v, out, lse, **self._own, dtype="float32"
        )
        gradients = list(found)
        for i, x in enumerate((k, v), 1):
            if self._skipped:
                own_gradient, gradients[i] = gradients[i], zeros(x.shape, x, "float32")
                put_rows(gradients[i], self._skipped, own_gradient)
        for part in self._parts:
            dout_part, q_part, out_part = (self._reversed(part, x) for x in (dout, q, out))
            k_part, v_part = (self._reversed(part, x, keys=True) for x in (k, v))
            rows = slice(part.begin - self._span.begin, part.end - self._span.begin)
            lse_part = lse[part.items, :, rows][:, :, ::-1].copy()
            inputs = dout_part, q_part, k_part, v_part, out_part, lse_part
            found = self._attention.backward(*inputs, **self._before(part), dtype="float32")
            first = part.begin - self._block - self._span.first
            for gradient, x, at in zip(gradients, found, (rows.start, first, first), strict=True):
                add_rows(gradient[part.items], at, _reverse(x))
        return gradients

    def _own_blocks(self, *keys: Tensor) -> list[Tensor]:
        """The keys that the first call has: of blocks with a query."""
        return [as_tensor(x[:, self._skipped :]) for x in keys]

    def _before(self, part: _Part) -> dict[str, Any]:
        """The options of the second call."""
        return {
            # Keys at the begin of the reversed order that no row of `q` stands beside.
            "query_start": part.key_end - (part.end - self._block),
            "dropout_origin": (part.later, 0),
            "seed": self._seed,
        }

    def _reversed(self, part: _Part, x: Tensor, *, keys: bool = False) -> Tensor:
        """The rows of a part in reversed order, of queries or of keys."""
        if keys:
            first, end, base = part.begin - self._block, part.key_end, self._span.first
        else:
            first, end, base = part.begin, part.end, self._span.begin
        return _reverse(x[part.items, first - base : end - base])

    def _merge(
        self, out: Tensor, lse: Tensor, part: _Part, found: Tensor, found_lse: Tensor
    ) -> None:
        B, count, H, D = found.shape
        by_head = empty((B * H, count, D), found)
        ops.gather_rows(by_head, _reverse(found), [0] * H, 1)
        by_head_lse = found_lse[:, :, ::-1].copy().reshape(B * H, count)
        starts = [part.begin - self._span.begin] * H
        ops.merge_rows(out[part.items], lse[part.items], by_head, by_head_lse, starts, 1)


@dataclass(frozen=True)
class _Part:
    """Queries [begin, end) of a sequence that have keys in the block before theirs, which ends with
    row `key_end` at the latest; so many rows in reversed order are `later` ones."""

    items: slice
    begin: int
    end: int
    key_end: int
    later: int


def _parts(span: Span, block: int) -> Iterator[_Part]:
    for items, first, last in span.sequences.entries() if block else ():
        begin, end = max(first + block, span.begin), min(last, span.end)
        if begin < end:
            key_end, final = (first + (n - 1 - first) // block * block for n in (end, last))
            yield _Part(items, begin, end, key_end, final - key_end)


def _reverse(x: Tensor) -> Tensor:
    return x[:, ::-1].copy()
