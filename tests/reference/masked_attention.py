"""Causal attention with a mask for each head, and the masks of the baselines, in float64."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

Mask = Callable[[int, int], np.ndarray]  # (rows, head) to (rows, rows) bool


def sliding(window: int) -> Mask:
    """The last `window` keys."""

    def mask(n: int, head: int) -> np.ndarray:
        distance = np.arange(n)[:, None] - np.arange(n)[None, :]
        return (distance >= 0) & (distance < window)

    return mask


def fixed(block: int, columns: int) -> Mask:
    """Both sets of Child et al., arXiv 1904.10509, section 4.3; heads have columns of their own."""

    def mask(n: int, head: int) -> np.ndarray:
        i, j = np.arange(n)[:, None], np.arange(n)[None, :]
        t = block - (head % (block // columns) + 1) * columns
        summary = (t <= j % block) & (j % block < t + columns)
        return (j <= i) & ((j // block == i // block) | summary)

    return mask


def forward(
    mask: Mask,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
    slopes: Sequence[float] | None = None,
) -> np.ndarray:
    """(B, N, H, D) of q (B, N, H, D) and k, v (B, N, Hk, D); `slopes` are ALiBi's."""
    B, N, H, D = q.shape
    out = np.zeros(q.shape)
    if cu_seqlens is not None:
        spans = [(0, a, e) for a, e in itertools.pairwise(cu_seqlens)]
    else:
        spans = [(b, 0, N if lengths is None else lengths[b]) for b in range(B)]
    for (b, a, e), h in itertools.product(spans, range(H)):
        if e == a:
            continue
        g, rows = h // (H // k.shape[2]), np.arange(e - a)
        s = q[b, a:e, h] @ k[b, a:e, g].T / np.sqrt(D)
        if slopes is not None:
            s = s - slopes[h] * (rows[:, None] - rows[None, :])
        s = np.where(mask(e - a, h), s, -np.inf)
        p = np.exp(s - s.max(axis=1, keepdims=True))
        out[b, a:e, h] = p / p.sum(axis=1, keepdims=True) @ v[b, a:e, g]
    return out
