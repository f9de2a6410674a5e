"""Philox4x32-10, the counter-based random numbers of Salmon et al. (SC 2011), vectorised."""

import numpy as np

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85
MASK = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(key: int, counter_low: np.ndarray, counter_high: np.ndarray) -> np.ndarray:
    """Four 32-bit words, shape (..., 4), from a 64-bit key and counters of two 64-bit halves."""
    low, high = np.broadcast_arrays(
        np.asarray(counter_low, np.uint64), np.asarray(counter_high, np.uint64)
    )
    c0, c1, c2, c3 = low & MASK, low >> HALF, high & MASK, high >> HALF
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1 = (p1 >> HALF) ^ c1 ^ np.uint64(k0), p1 & MASK
        c2, c3 = (p0 >> HALF) ^ c3 ^ np.uint64(k1), p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)
