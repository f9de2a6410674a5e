# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Dilated attention on NumPy arrays
#
# `longnet.DilatedAttention` is the attention of LongNet ([arXiv
# 2307.02486](https://arxiv.org/abs/2307.02486)): each *level* cuts the sequence into segments of
# `w` rows and keeps one row in `r` of them. Short segments see everything nearby, long ones see
# far and sparsely, and the work grows with the length of the sequence, not with its square.

# %%
from time import perf_counter

import matplotlib.pyplot as plt
import ml_dtypes
import numpy as np

import longnet

DEVICE = "cpu"  # "cuda": up to a million rows in bfloat16; see the last cell
SETTINGS = {
    "cpu": {
        "dtype": np.float32,
        "heads": 2,
        "lengths": [2048 << i for i in range(5)],
        "longest_dense": 16384,
        "levels": ([512, 2048, 8192, 32768], [1, 4, 16, 64]),
    },
    "cuda": {
        "dtype": ml_dtypes.bfloat16,
        "heads": 12,
        "lengths": [2048 << i for i in range(10)],
        "longest_dense": 262_144,
        "levels": ([2048, 4096, 8192, 16384, 32768], [1, 2, 4, 6, 12]),
    },
}[DEVICE]

rng = np.random.default_rng(0)


def rows(N, heads=4, D=64, dtype=np.float32):
    """Random rows of `heads` heads of width D: (1, N, heads, D)."""
    return rng.standard_normal((1, N, heads, D), dtype=np.float32).astype(dtype)


# %% [markdown]
# ## Forward and backward
#
# Arrays go in as `(batch, rows, heads, head dim)`, without a copy, and arrays come out. `lse` is
# the logarithm of each row's softmax denominator; `backward` takes it back.

# %%
attn = longnet.DilatedAttention([256, 1024, 4096], [1, 4, 16], causal=True)
q, k, v, dout = (rows(8192) for _ in range(4))
out, lse = attn.forward(q, k, v)
dq, dk, dv = attn.backward(dout, q, k, v, out, lse)
out.shape, lse.shape, dq.shape

# %% [markdown]
# ## What it computes
#
# One softmax over all keys that a query sees on all levels; a key seen on two levels counts twice.
# The definition in a few lines of float64, for one head:


# %%
def by_definition(q, k, v, segment_lengths, dilation_rates, head):
    """Output of one head, from q, k, v (N, D)."""
    N, D = q.shape
    n = np.arange(N)
    weight = np.zeros((N, N))
    scores = np.exp(q @ k.T / np.sqrt(D))
    for w, r in zip(segment_lengths, dilation_rates, strict=True):
        takes_part = n % w % r == head % r
        same_segment = n[:, None] // w == n // w
        earlier = n[:, None] >= n
        weight += scores * (takes_part[:, None] & takes_part & same_segment & earlier)
    total = weight.sum(axis=1, keepdims=True)
    return np.divide(weight @ v, total, out=np.zeros_like(v), where=total > 0)


levels = [24, 100, 300], [1, 3, 7]  # nothing need divide anything
small = longnet.DilatedAttention(*levels)
q, k, v = (rows(501) for _ in range(3))
out, _ = small.forward(q, k, v)
expected = np.stack(
    [
        by_definition(*(x[0, :, h].astype(np.float64) for x in (q, k, v)), *levels, h)
        for h in range(4)
    ],
    axis=1,
)
largest_error = np.abs(out[0] - expected).max()
assert largest_error < 1e-5
print(f"largest error: {largest_error:.1e}, of values up to {np.abs(expected).max():.1f}")

# %% [markdown]
# ## Packed documents, padded batches, half precision
#
# `cu_seqlens` says where documents packed end to end begin: no document sees another. `lengths`
# says how many rows of each sequence of a batch exist. float16 and bfloat16 (from `ml_dtypes`) are
# stored as such and computed in float32.

# %%
q, k, v = (rows(1000) for _ in range(3))
packed, _ = small.forward(q, k, v, cu_seqlens=np.array([0, 300, 1000]))
alone, _ = small.forward(q[:, 300:], k[:, 300:], v[:, 300:])
assert np.array_equal(packed[:, 300:], alone)

padded, lse = small.forward(q, k, v, lengths=np.array([700]))
assert not padded[:, 700:].any()
assert np.isneginf(lse[:, :, 700:]).all()

half, _ = small.forward(*(x.astype(ml_dtypes.bfloat16) for x in (q, k, v)))
full, _ = small.forward(q, k, v)
print(
    half.dtype, f"largest difference to float32: {np.abs(half.astype(np.float32) - full).max():.3f}"
)

# %% [markdown]
# ## Time grows with the length
#
# Doubling a sequence doubles the time. Attention to everything would take four times as long; that
# is the same class with one level, `w = N` and `r = 1`. A `longnet.Tensor` lies where it is sent;
# a call with tensors of a GPU only starts the work there, so that a clock has to wait for it.

# %%
heads, lengths = SETTINGS["heads"], SETTINGS["lengths"]
arrays = [rows(lengths[-1], heads, dtype=SETTINGS["dtype"]) for _ in range(3)]


def seconds(attention, N):
    """Time of one forward pass over N rows, the best of three after a first one."""
    q, k, v = (longnet.Tensor(array[:, :N]).to(DEVICE) for array in arrays)
    times = []
    for _ in range(4):
        longnet.synchronize(DEVICE)
        start = perf_counter()
        attention.forward(q, k, v)
        longnet.synchronize(DEVICE)
        times.append(perf_counter() - start)
    return min(times[1:])


paced = longnet.DilatedAttention(*SETTINGS["levels"])
dilated = {N: seconds(paced, N) / N * 1e6 for N in lengths}
dense = {
    N: seconds(longnet.DilatedAttention([N], [1]), N) / N * 1e6
    for N in lengths
    if SETTINGS["longest_dense"] >= N
}
for name, times in (("dense", dense), ("dilated", dilated)):
    print(f"µs a token, {name}: " + ", ".join(f"{t:.3g} at {N:,}" for N, t in times.items()))

# %%
fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for name, times in (("dense", dense), ("dilated", dilated)):
    ax.plot(*zip(*times.items(), strict=True), "o-", label=name)
ax.set_xscale("log", base=2)
ax.set_yscale("log", base=2)
ax.set_xticks(lengths[::2], [f"{N:,}" for N in lengths[::2]])
ax.yaxis.set_major_formatter("{x:g}")
ax.set(xlabel="length of the sequence", ylabel="µs a token")
ax.set_title(f"forward, {heads} heads of 64, {'CPU' if DEVICE == 'cpu' else 'GPU'}")
ax.legend()
plt.show()

# %% [markdown]
# ## Larger, on a GPU
#
# Set `DEVICE = "cuda"` in the first cell: twelve heads, the paper's levels, and up to 1,048,576
# rows in bfloat16. Any PyTorch, CuPy or JAX array that lies on the GPU will do for q, k and v,
# without a copy. `python bench/notebooks.py --save` runs every notebook so, and writes what they
# print to `bench/results/notebooks_cuda.txt`.
