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
# # How dilated attention sees
#
# Which keys does a query see, on which level, in which head, and how far does information travel
# through several layers? LongNet's claim is that the distance between any two tokens is
# logarithmic (section 2.3 of the paper). Here it is counted.

# %%
import matplotlib.pyplot as plt
import numpy as np

import longnet
from longnet import functional as F
from longnet.autograd import Variable

DEVICE = "cpu"  # "cuda": the paper's levels over 8,192 tokens; see the last cell
SETTINGS = {
    "cpu": {
        "N": 1024,
        "patterns": {
            "LongNet: 16 64 256 1024 / 1 4 16 64": ([16, 64, 256, 1024], [1, 4, 16, 64], 64),
            "the same with 4 heads only": ([16, 64, 256, 1024], [1, 4, 16, 64], 4),
            "no segment as long as the sequence: 16 64 256 / 1 4 16": (
                [16, 64, 256],
                [1, 4, 16],
                16,
            ),
            "one level: 16 / 1": ([16], [1], 1),
        },
    },
    "cuda": {
        "N": 8192,
        "patterns": {
            "2048 4096 8192 16384 32768 / 1 2 4 6 12": (
                [2048, 4096, 8192, 16384, 32768],
                [1, 2, 4, 6, 12],
                12,
            ),
            "the same with 4 heads only": (
                [2048, 4096, 8192, 16384, 32768],
                [1, 2, 4, 6, 12],
                4,
            ),
            "short segments: 64 512 4096 8192 / 1 4 8 16": (
                [64, 512, 4096, 8192],
                [1, 4, 8, 16],
                16,
            ),
            "no segment as long as the sequence: 2048 4096 / 1 2": ([2048, 4096], [1, 2], 2),
        },
    },
}[DEVICE]

# %% [markdown]
# ## One head
#
# Three levels: segments of 16 rows seen whole, segments of 64 with every fourth row, segments of
# 256 with every sixteenth. Darker cells are keys that count on more than one level. The lines are
# segments.

# %%
attn = longnet.DilatedAttention([16, 64, 256], [1, 4, 16], causal=True)
ax = attn.plot(256, head=0)
plt.show()

# %% [markdown]
# ## Sixteen heads together
#
# Head `h` takes part at positions `p` with `p % r == h % r`, so that the heads share the work: a
# row that one head leaves out another one has. With as many heads as the largest rate, each row is
# seen by some head on each level.

# %%
N, heads = 256, 16
visible = np.stack([attn.visible(N, head=h, heads=heads) for h in range(heads)])
together = (visible > 0).sum(axis=0)

fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
for ax, counts, title in (
    (axes[0], visible[1] > 0, "head 1"),
    (axes[1], visible[5] > 0, "head 5"),
    (axes[2], together, "how many of 16 heads"),
):
    image = ax.imshow(
        counts, cmap="Blues" if counts is together else "Greys", interpolation="nearest"
    )
    ax.set(title=title, xlabel="key", ylabel="query")
fig.colorbar(image, ax=axes[2])
plt.show()

seen = [(x > 0).sum() / np.tril(np.ones((N, N))).sum() for x in (visible[0], together)]
print(f"of all earlier keys one head sees {seen[0]:.1%}, all heads together {seen[1]:.1%}")

# %% [markdown]
# ## Over layers
#
# A token reaches a later one if there is a chain of layers, and in each layer a head, through
# which it is seen. After one layer a query knows the keys that some head sees; after two, what
# those keys knew; and so on, until nothing new is connected. A layer more is a product of two
# matrices of zeros and ones:


# %%
def connected_shares(segment_lengths, dilation_rates, N, heads):
    """What share of (query, earlier key) pairs is connected after 1, 2, ... layers."""
    attention = longnet.DilatedAttention(segment_lengths, dilation_rates)
    step = np.zeros((N, N), np.float32)
    for h in range(heads):
        step += attention.visible(N, head=h, heads=heads) > 0
    step = np.minimum(step + np.eye(N, dtype=np.float32), 1)  # the residual connection
    backward = Variable(longnet.Tensor(step.T.copy()).to(DEVICE))
    reach, shares = step, []
    pairs = N * (N + 1) / 2
    while True:
        shares.append(reach.sum(dtype=np.float64) / pairs)
        if shares[-1:] == shares[-2:-1]:
            return shares[:-1]
        ways = F.linear(Variable(longnet.Tensor(reach).to(DEVICE)), backward)  # reach @ step
        reach = np.minimum(ways.data.to("cpu").numpy(), 1)


N, patterns = SETTINGS["N"], SETTINGS["patterns"]
connected = {
    name: connected_shares(lengths, rates, N, heads)
    for name, (lengths, rates, heads) in patterns.items()
}
for name, shares in connected.items():
    print(f"{name:56} {len(shares)} layers: {shares[-1]:.1%} of all pairs")

# %%
fig, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
for name, shares in connected.items():
    ax.plot(range(1, len(shares) + 1), np.multiply(shares, 100), "o-", markersize=4, label=name)
ax.set(xlabel="layers", ylabel="pairs connected, %", title=f"{N:,} tokens", ylim=(0, 103))
ax.grid(alpha=0.3)
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# With a segment as long as the sequence nearly everything is connected after a few layers: that is
# what the long, sparse levels are for. Two things are worth knowing before choosing levels for a
# causal model:
#
# * Nothing crosses the end of a segment of the longest level, however many layers there are: let
#   the longest segment be as long as the sequences that the model shall read, and have as many
#   heads as the largest rate.
# * The 1.7 % that stay unconnected are queries in the first rows of a segment. A chain can only go
#   on to later rows, and such a row looks back past the segment's beginning on the sparser levels
#   alone, at rows of its own class.
#
# ## The work
#
# On a level, one row in `r` takes part and sees up to `w / r` keys: `N * w / r^2 / 2` pairs a
# head, when causal. Levels that grow by the same factor in `w` and `r` therefore cost less and
# less, and their sum stays below a constant times N.

# %%
lengths = 2 ** np.arange(11, 21)
fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
paper = longnet.DilatedAttention([2048, 4096, 8192, 16384, 32768], [1, 2, 4, 6, 12])
for name, pairs in (
    ("dense", [N * (N + 1) // 2 for N in lengths.tolist()]),
    ("the paper's levels", [paper.pairs(N, 12) / 12 for N in lengths.tolist()]),
):
    ax.loglog(lengths, np.divide(pairs, lengths), "o-", label=name)
ax.set(xlabel="length of the sequence", ylabel="keys a query sees, mean of 12 heads")
ax.legend()
plt.show()

# %% [markdown]
# ## Larger, on a GPU
#
# Set `DEVICE = "cuda"` in the first cell: the paper's own levels, over 8,192 tokens, with the
# matrices multiplied on the GPU. `python bench/notebooks.py --save` runs every notebook so, and
# writes what they print to `bench/results/notebooks_cuda.txt`.
