"""Attention with linear biases (ALiBi, arXiv 2108.12409): the published slopes, and attention."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from reference import dilated_attention, rotary
from reference.dilated_attention import Pattern


def slopes(heads: int) -> list[float]:
    """As the paper's authors give them, for any number of heads."""
    if math.log2(heads).is_integer():
        first = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [first * first**i for i in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    return slopes(below) + slopes(2 * below)[0::2][: heads - below]


def attention(
    pattern: Pattern, q: np.ndarray, k: np.ndarray, v: np.ndarray, start: int = 0, **sequences: Any
) -> np.ndarray:
    """Dilated attention, a score being less by the slope times the distance. In float64 one more
    dimension holds the bias slope * position, and what it lacks is the same for all keys."""
    B, N, H, D = q.shape
    scale = D**-0.5 if pattern.scale is None else pattern.scale
    p = rotary.positions(N, start, sequences.get("cu_seqlens")).astype(float) - N / 2 - start
    ones = np.broadcast_to(np.array(slopes(H))[:, None] / scale, (B, N, H, 1))
    places = np.broadcast_to(p[:, None, None], (*k.shape[:3], 1))
    wide = [np.concatenate(pair, axis=-1) for pair in ((q, ones), (k, places), (v, 0 * places))]
    return dilated_attention.forward(replace(pattern, scale=scale), *wide, **sequences)[0][..., :D]
