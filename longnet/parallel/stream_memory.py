"""What a sequence that passes through a device in pieces takes there."""

from __future__ import annotations

from longnet._core import DilatedAttention, Tensor


def stream_bytes(
    attention: DilatedAttention,
    N: int,
    heads: int,
    head_dim: int,
    *,
    piece: int,
    kv_heads: int,
    batch: int,
    dtype: str,
) -> int:
    """See `longnet.DilatedAttention.stream_bytes`."""
    rows = min(piece, N)
    row = batch * head_dim * Tensor.empty(1, dtype).nbytes  # of one head
    levels = zip(attention.segment_lengths, attention.dilation_rates, strict=True)
    crossing = [(w, r) for w, r in levels if rows < N and (w > rows or rows % w)]
    held = sum(_rows_held(attention.causal, N, rows, w, r) for w, r in crossing)
    part = max((rows // r + 1 for _, r in crossing), default=0)
    inputs, results = row * (heads + 2 * kv_heads), row * heads + 4 * batch * heads
    copied = inputs + 2 * results if any(w <= rows for w, _ in crossing) else 0
    return rows * (2 * inputs + 2 * results + copied) + 2 * row * heads * (held + 2 * part)


def _rows_held(causal: bool, N: int, piece: int, w: int, r: int) -> int:
    """Compact rows of a head on a level that crosses the ends of pieces."""
    w = min(w, N)
    if causal:
        return -(-w // r) * (2 if w % piece else 1)
    return min(-(-N // w), -(-N // piece)) * -(-w // r)
