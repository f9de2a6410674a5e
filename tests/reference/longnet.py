"""The LongNet decoder in NumPy float64: what a model with these weights computes.

`config` is anything with the fields of a model's configuration; `weights` map its parameters' names
to float64 arrays.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from reference import (
    alibi,
    cross_entropy,
    dilated_attention,
    gelu,
    layer_norm,
    masked_attention,
    rms_norm,
    rotary,
    swiglu,
)
from reference.dilated_attention import Pattern

Weights = Mapping[str, np.ndarray]


def norm(config: Any, weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Layer norm or RMS norm over the last dimension."""
    weight = weights[f"{name}.weight"]
    if config.norm == "rms_norm":
        return rms_norm.forward(x, weight, config.norm_eps)[0]
    return layer_norm.forward(x, weight, weights[f"{name}.bias"], config.norm_eps)[0]


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """x W^T + b, where there is a b."""
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def scaled_frequencies(config: Any, dim: int) -> np.ndarray:
    """The rotation's, for contexts longer than those trained on."""
    base, scaling, s = config.position_base, config.position_scaling, config.position_factor
    if scaling == "ntk":
        base *= s ** (dim / (dim - 2))
    elif scaling != "none":
        return rotary.frequencies(dim, base, s, config.position_length or 0).astype(float)
    return rotary.frequencies(dim, base).astype(float)


def place(config: Any, x: np.ndarray, positions: np.ndarray, sign: int) -> np.ndarray:
    """RoPE, or xPos as it is defined: its scale grows with the position without a bound."""
    if config.position not in ("rope", "xpos"):
        return x
    half = np.arange(x.shape[-1] // 2)
    angle = positions[:, None] * scaled_frequencies(config, x.shape[-1])
    turn = np.exp(1j * angle)
    if config.position == "xpos":
        zeta = (2 * half / x.shape[-1] + 0.4) / 1.4
        turn = turn * zeta ** (sign * positions[:, None] / config.xpos_scale_base)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn[None, :, None]
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def sinusoids(positions: np.ndarray, dim: int, base: float) -> np.ndarray:
    """(N, dim): arXiv 1706.03762, section 3.5."""
    table = np.zeros((len(positions), dim))
    for i in range(dim // 2):
        table[:, 2 * i] = np.sin(positions / base ** (2 * i / dim))
        table[:, 2 * i + 1] = np.cos(positions / base ** (2 * i / dim))
    return table


def attention(
    config: Any, weights: Weights, name: str, x: np.ndarray, levels: tuple, **sequences: Any
) -> np.ndarray:
    """The token mixer: projections, positions, dilated attention, the inner norm."""
    (batch, n, dim), head_dim = x.shape, config.embed_dim // config.num_heads
    positions = rotary.positions(n, 0, sequences.get("cu_seqlens")).astype(float)
    q, k, v = (
        linear(weights, f"{name}.{part}", x).reshape(batch, n, -1, head_dim)
        for part in ("query", "key", "value")
    )
    q, k = place(config, q, positions, 1), place(config, k, positions, -1)
    pattern = Pattern(*levels, offsets=config.offsets)
    if config.mixer in ("sliding", "sparse"):
        length, slopes = config.levels(0)[0][0], None
        mask = masked_attention.sliding(config.window or length)
        if config.mixer == "sparse":
            mask = masked_attention.fixed(length, config.summary_columns)
        if config.position == "alibi":
            slopes = alibi.slopes(config.num_heads)
        mixed = masked_attention.forward(mask, q, k, v, slopes=slopes, **sequences)
        mixed = mixed.reshape(batch, n, dim)
    elif config.position == "alibi":
        mixed = alibi.attention(pattern, q, k, v, **sequences).reshape(batch, n, dim)
    else:
        if config.position_scaling == "yarn":  # arXiv 2309.00071, equations 21 and 22
            q, k = (x * (0.1 * math.log(config.position_factor) + 1) for x in (q, k))
        mixed = dilated_attention.forward(pattern, q, k, v, **sequences)[0].reshape(batch, n, dim)
    if config.norm_placement == "sub":
        mixed = norm(config, weights, f"{name}.inner_norm", mixed)
    return linear(weights, f"{name}.out", mixed)


def feed_forward(config: Any, weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """fc2(norm(activation(fc1(x))))."""
    h = linear(weights, f"{name}.fc1", x)
    if config.activation == "swiglu":
        h = swiglu.forward(linear(weights, f"{name}.gate", x), h)
    else:
        h = gelu.forward(h)
    if config.norm_placement == "sub":
        h = norm(config, weights, f"{name}.norm", h)
    return linear(weights, f"{name}.fc2", h)


def logits(config: Any, weights: Weights, tokens: np.ndarray, **sequences: Any) -> np.ndarray:
    """(B, N, V) of tokens (B, N); `sequences` are lengths or cu_seqlens."""
    table = weights["embedding.weight"]
    x = table[tokens] * math.sqrt(config.embed_dim)
    p = rotary.positions(tokens.shape[1], 0, sequences.get("cu_seqlens"))
    if config.position == "learned":
        x = x + weights["positions.table.weight"][p]
    if config.position == "sinusoidal":
        x = x + sinusoids(p, config.embed_dim, config.position_base)
    for i in range(config.num_layers):
        n = tokens.shape[1]
        levels = ((n,), (1,)) if config.mixer == "dense" else config.levels(i)
        h = norm(config, weights, f"blocks.{i}.mixer_norm", x)
        x = x + attention(config, weights, f"blocks.{i}.mixer", h, levels, **sequences)
        h = norm(config, weights, f"blocks.{i}.ffn_norm", x)
        x = x + feed_forward(config, weights, f"blocks.{i}.ffn", h)
    return norm(config, weights, "norm", x) @ weights.get("output", table).T


def loss(
    config: Any,
    weights: Weights,
    tokens: np.ndarray,
    targets: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
) -> float:
    """Mean cross-entropy in nats of the targets that are not negative and lie inside `lengths`."""
    x = logits(config, weights, tokens, lengths=lengths, cu_seqlens=cu_seqlens)
    counts = targets >= 0
    if lengths is not None:
        counts = counts & (np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None])
    return float(cross_entropy.forward(x[counts], targets[counts], ignore_index=-1).mean())
