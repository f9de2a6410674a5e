"""Dilated attention (LongNet, arXiv 2307.02486) in NumPy float64, as plainly as it can be said.

Every level becomes an (N, N) matrix of which query sees which key; all the rest is one softmax
over the sum of these matrices.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reference.philox import philox


@dataclass(frozen=True)
class Pattern:
    """The options of a dilated attention."""

    segment_lengths: tuple[int, ...]
    dilation_rates: tuple[int, ...]
    causal: bool = True
    offsets: str = "interleaved"
    gradient: str = "exact"
    zero_keys: bool = False
    scale: float | None = None
    dropout: float = 0.0

    @property
    def levels(self) -> list[tuple[int, int]]:
        return list(zip(self.segment_lengths, self.dilation_rates, strict=True))

    def head_offset(self, head: int, heads: int, rate: int) -> int:
        return head % rate if self.offsets == "interleaved" else head // -(-heads // rate)


def level_sees(pattern: Pattern, n: int, head: int, heads: int, level: int) -> np.ndarray:
    """(n, n) bool: which query (row) sees which key (column) on one level."""
    w, r = pattern.levels[level]
    rows = np.arange(n)
    on = rows % w % r == pattern.head_offset(head, heads, r)
    sees = on[:, None] & on[None, :] & (rows[:, None] // w == rows[None, :] // w)
    return sees & (rows[:, None] >= rows[None, :]) if pattern.causal else sees


def visible(pattern: Pattern, n: int, head: int, heads: int) -> np.ndarray:
    """(n, n) int: on how many levels a query sees a key."""
    return sum(
        level_sees(pattern, n, head, heads, i).astype(int) for i in range(len(pattern.levels))
    )


def zero_keys(pattern: Pattern, n: int, head: int, heads: int, level: int) -> np.ndarray:
    """(n,) int: how many keys of zeros (torchscale's padding) each query sees on one level."""
    count = np.zeros(n, int)
    if not pattern.zero_keys or pattern.causal:
        return count
    w, r = pattern.levels[level]
    s = pattern.head_offset(head, heads, r)
    padded = -(-min(w, n) // r) * r
    for start in range(0, n, w):
        real = min(w, n - start)
        count[start + s : start + real : r] = sum(p % r == s for p in range(real, padded))
    return count


def dropout_factor(
    pattern: Pattern,
    n: int,
    start: int,
    b: int,
    head: int,
    heads: int,
    level: int,
    seed: int,
    origin: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """(n, n): 0 where the key of a query is dropped, else 1 / (1 - p)."""
    if pattern.dropout == 0.0:
        return np.ones((n, n))
    w, r = pattern.levels[level]
    rows = np.arange(n)
    place = rows % w // r  # (p - s) / r of the rows that take part
    segment = (origin[0] + start + rows // w * w)[:, None]
    level += origin[1]
    low = (place[None, :] // 4) | (place[:, None] << 32)
    high = segment % 2**32 | ((level | (b * heads + head) << 6) << 32)
    assert origin[0] + start + n < 2**32, (
        "the key would take in the high half of the segment's start"
    )
    words = np.take_along_axis(
        philox(seed, low, high), np.broadcast_to(place % 4, (n, n))[..., None], axis=-1
    )[..., 0]
    return (words >= np.uint32(pattern.dropout * 2**32)) / (1.0 - pattern.dropout)


@dataclass
class Head:
    """One head of one sequence: rows `rows` of batch item `b`, its levels and their sum."""

    b: int
    rows: slice
    head: int
    kv_head: int
    sees: list[np.ndarray]  # a level: (n, n) bool
    factor: list[np.ndarray]  # a level: (n, n), the dropout
    zeros: list[np.ndarray]  # a level: (n,) keys of zeros


def each_head(
    pattern: Pattern,
    q: np.ndarray,
    k: np.ndarray,
    lengths=None,
    cu_seqlens=None,
    seed: int = 0,
    dropout_origin: tuple[int, int] = (0, 0),
) -> Iterator[Head]:
    """All heads of all sequences: right-padded rows, or documents packed end to end."""
    (batch, n, heads, _), kv_heads = q.shape, k.shape[2]
    if cu_seqlens is not None:
        sequences = [(0, a, e) for a, e in itertools.pairwise(cu_seqlens)]
    else:
        sequences = [(b, 0, n if lengths is None else lengths[b]) for b in range(batch)]
    for b, start, end in sequences:
        size = int(end - start)
        for h in range(heads):
            where = [(size, h, heads, i) for i in range(len(pattern.levels))]
            yield Head(
                b,
                slice(start, end),
                h,
                h // (heads // kv_heads),
                [level_sees(pattern, *x) for x in where],
                [
                    dropout_factor(
                        pattern, size, int(start), b, h, heads, x[-1], seed, dropout_origin
                    )
                    for x in where
                ],
                [zero_keys(pattern, *x) for x in where],
            )


def scores(pattern: Pattern, q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(n, n): scale * q[n] . k[m] of one head."""
    return (q.shape[-1] ** -0.5 if pattern.scale is None else pattern.scale) * (q @ k.T)


def log_sum_exp(s: np.ndarray, count: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """(n,): log of the sum over keys, each `count` times, and of `zeros` terms exp(0)."""
    highest = np.max(np.where(count > 0, s, -np.inf), axis=1, initial=-np.inf)
    highest = np.where(zeros > 0, np.maximum(highest, 0.0), highest)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # of keys not seen
        keys = np.where(count > 0, count * np.exp(s - highest[:, None]), 0.0).sum(axis=1)
        return highest + np.log(keys + np.where(zeros > 0, zeros * np.exp(-highest), 0.0))


def softmax(s: np.ndarray, seen: np.ndarray, lse: np.ndarray) -> np.ndarray:
    """(n, n): exp(s - lse) where a key is seen, else 0."""
    with np.errstate(invalid="ignore", over="ignore"):  # lse is -inf where nothing is seen
        return np.where(seen, np.exp(s - lse[:, None]), 0.0)


def forward(pattern: Pattern, q, k, v, **options) -> tuple[np.ndarray, np.ndarray]:
    """Out (B, N, H, D) and lse (B, H, N) of q (B, N, H, D) and k, v (B, N, Hk, D), in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    lse = np.full((q.shape[0], q.shape[2], q.shape[1]), -np.inf)
    for x in each_head(pattern, q, k, **options):
        qh, kh, vh = q[x.b, x.rows, x.head], k[x.b, x.rows, x.kv_head], v[x.b, x.rows, x.kv_head]
        s = scores(pattern, qh, kh)
        count = sum(x.sees)
        kept = sum(a * b for a, b in zip(x.sees, x.factor, strict=True))
        lse[x.b, x.head, x.rows] = log_sum_exp(s, count, sum(x.zeros))
        p = softmax(s, count > 0, lse[x.b, x.head, x.rows])
        out[x.b, x.rows, x.head] = (kept * p) @ vh
    return out, lse


def backward(pattern: Pattern, dout, q, k, v, out, lse, **options) -> tuple[np.ndarray, ...]:
    """Gradients dq (B, N, H, D), dk and dv (B, N, Hk, D), in float64.

    `exact` differentiates the whole; `detached` holds each level's share of the softmax constant.
    """
    dout, q, k, v, out, lse = (np.asarray(x, np.float64) for x in (dout, q, k, v, out, lse))
    scale = q.shape[-1] ** -0.5 if pattern.scale is None else pattern.scale
    dq, dk, dv = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    for x in each_head(pattern, q, k, **options):
        here, there = (x.b, x.rows, x.head), (x.b, x.rows, x.kv_head)
        s = scores(pattern, q[here], k[there])
        dp = dout[here] @ v[there].T
        lse_h = lse[x.b, x.head, x.rows]
        for sees, factor, zeros in zip(x.sees, x.factor, x.zeros, strict=True):
            p = softmax(s, sees, lse_h)
            if pattern.gradient == "exact":
                delta = (dout[here] * out[here]).sum(axis=1)
            else:
                own = softmax(s, sees, log_sum_exp(s, sees, zeros))
                delta = (dout[here] * ((factor * own) @ v[there])).sum(axis=1)
            ds = p * (factor * dp - delta[:, None])
            dv[there] += (factor * p).T @ dout[here]
            dq[here] += scale * ds @ k[there]
            dk[there] += scale * ds.T @ q[here]
    return dq, dk, dv
