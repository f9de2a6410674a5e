"""Rotary position embedding and xPos; angles in long double, since positions may be large."""

import numpy as np


def positions(rows: int, start: int, cu_seqlens: np.ndarray | None) -> np.ndarray:
    """Where rows start, start + 1, ... of a sequence of packed documents stand in theirs."""
    p = start + np.arange(rows)
    if cu_seqlens is not None:
        p = p - cu_seqlens[np.searchsorted(cu_seqlens, p, side="right") - 1]
    return p


def frequencies(
    dim: int,
    base: float,
    factor: float = 1.0,
    length: int = 0,
    slow: float = 1.0,
    fast: float = 32.0,
) -> np.ndarray:
    """(dim / 2,) long double: angle for each position, of contexts `factor` times as long.

    Position interpolation (arXiv 2306.15595, equation 3), or with a `length` YaRN's interpolation
    by parts (arXiv 2309.00071, equations 17 to 19): r is how often a pair turns in `length`.
    """
    theta = np.longdouble(base) ** -(2 * np.arange(dim // 2) / np.longdouble(max(dim, 1)))
    if factor == 1.0:
        return theta
    if length == 0:
        return theta / factor
    r = length * theta / (2 * np.longdouble(np.pi))
    ramp = np.where(r < slow, 0, np.where(r > fast, 1, (r - slow) / (fast - slow)))
    return (1 - ramp) * theta / factor + ramp * theta


def rotary(
    x: np.ndarray,
    cu_seqlens: np.ndarray | None,
    start: int,
    base: float,
    scale_base: float,
    block: int,
    inverse: bool,
    sign: int,
    **scaling: float,
) -> np.ndarray:
    """x (B, N, H, D) turned pair by pair, and stretched where scale_base is not 0; `scaling` as
    `frequencies` takes it."""
    p = positions(x.shape[1], start, cu_seqlens)[:, None, None]  # (N, 1, 1)
    share = 2 * np.arange(x.shape[3] // 2) / max(x.shape[3], 1)  # 2i / D
    angle = p * frequencies(x.shape[3], base, **scaling)
    zoom = 1.0
    if scale_base > 0:
        zeta = (share + 0.4) / 1.4
        zoom = zeta ** (sign * (p % block - block / 2) / scale_base)
    c = zoom * np.cos(angle).astype(float)
    s = zoom * np.sin(angle).astype(float) * (-1 if inverse else 1)
    even, odd = x[..., ::2].astype(float), x[..., 1::2].astype(float)
    return np.stack([even * c - odd * s, even * s + odd * c], axis=-1).reshape(x.shape)
