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
# # Reading DNA, a hundred thousand bases at a time
#
# A small LongNet reads six genomes and predicts the next base; at every 16th place it is asked
# instead which species it reads. Two questions: how far is it from an order-12 Markov model, which
# is what DNA compressors begin with, and how much must it read to know the species?
#
# The genomes are real, four of bacteria, a malaria parasite's and a part of a human chromosome.
# They come with two of Debian's packages: `apt install ragout-examples smalt-examples`. Where they
# are not installed, six Markov chains of order 3 take their places, drawn at random, each with its
# own share of C and G: they have statistics of their own too, but nothing beyond three bases, so
# that nothing said about genomes holds for them. The figures stored here are those of the genomes.

# %%
import gzip
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

import longnet
from longnet.autograd import no_grad
from longnet.optim import AdamW, clip_factor

DEVICE = "cpu"  # "cuda": segments of 131,072 bases, a larger model; see the last cell
SETTINGS = {
    "cpu": {
        "bases": 2_000_000,  # of each genome
        "lengths": [1024] * 5 + [4096],  # of training windows, in turn
        "steps": 120,
        "learning_rate": 6e-3,
        "dtype": "float32",
        "recompute": "none",
        "long": 131_072,
        "model": {
            "num_layers": 2,
            "embed_dim": 64,
            "num_heads": 4,
            "ffn_dim": 128,
            "segment_lengths": [128, 1024, 4096],
            "dilation_rates": [1, 4, 16],
        },
    },
    "cuda": {
        "bases": 20_000_000,
        "lengths": [4096] * 5 + [131_072],
        "steps": 240,
        "learning_rate": 2e-3,
        "dtype": "bfloat16",
        "recompute": "block",  # 786,432 bases in one step
        "long": 131_072,
        "model": {
            "num_layers": 4,
            "embed_dim": 384,
            "num_heads": 8,
            "segment_lengths": [2048, 8192, 32768, 131_072],
            "dilation_rates": [1, 2, 4, 8],
        },
    },
}[DEVICE]
LONG, MOST = SETTINGS["long"], SETTINGS["bases"]
FOLDER = Path("/usr/share/doc")
GENOMES = {
    "E. coli": "ragout/examples/E.Coli/references/MG1655-K12.fasta.gz",
    "H. pylori": "ragout/examples/H.Pylori/references/G27.fasta.gz",
    "S. aureus": "ragout/examples/S.Aureus/references/COL.fasta.gz",
    "V. cholerae": "ragout/examples/V.Cholerae/references/O395.fasta.gz",
    "P. falciparum": "smalt/test/data/genome_1.fa.gz",
    "H. sapiens, X": "smalt/test/data/hs37chrXtrunc.fa.gz",
}
species = list(GENOMES)
REAL = all((FOLDER / path).exists() for path in GENOMES.values())


def read_bases(path):
    """The first bases of a FASTA file as 0 to 3, without those that are not known."""
    code = np.full(256, 4, np.uint8)
    for i, base in enumerate(b"ACGT"):
        code[[base, base + 32]] = i
    parts, count = [], 0
    with gzip.open(path, "rb") as file:
        for chunk in iter(lambda: file.readlines(1 << 20), []):
            text = b"".join(line.strip() for line in chunk if not line.startswith(b">"))
            bases = code[np.frombuffer(text, np.uint8)]
            parts.append(bases[bases < 4])
            count += parts[-1].size
            if count >= MOST:
                break
    return np.concatenate(parts)[:MOST]


def make_bases(rng, strong):
    """Four thousand runs of 500 bases, end to end, of one chain; `strong`: its C's and G's."""
    mean = np.array([1 - strong, strong, strong, 1 - strong]) / 2
    steps = rng.dirichlet(30 * mean, size=(4, 4, 4)).cumsum(axis=-1)[..., :3]
    runs = rng.integers(4, size=(503, 4000))
    for i in range(3, 503):
        a, b, c = runs[i - 3 : i]
        runs[i] = (rng.random((4000, 1)) > steps[a, b, c]).sum(axis=1)
    return runs[3:].T.ravel().astype(np.uint8)


if REAL:
    genomes = [read_bases(FOLDER / path) for path in GENOMES.values()]
else:
    rng = np.random.default_rng(0)
    genomes = [make_bases(rng, strong) for strong in (0.51, 0.39, 0.33, 0.47, 0.2, 0.4)]
train = [bases[: -2 * LONG] for bases in genomes]
held_out = [bases[-2 * LONG :] for bases in genomes]
print("the genomes of Debian's packages" if REAL else "generated: the packages are not installed")
for name, bases in zip(species, genomes, strict=True):
    print(f"{name:14} {len(bases):10,} bases, {np.isin(bases, (1, 2)).mean():.0%} of them C or G")

# %% [markdown]
# ## Training
#
# A window is a stretch of one genome. What is asked after each base is the next one, and after
# every 16th the species, whose tokens come after those of the four bases. The end of each genome
# is held out: 262,144 bases.

# %%
ASK_EVERY = 16


def window(bases, which, begin, length):
    """Inputs and targets (length,) of a stretch of a genome."""
    row = bases[begin : begin + length + 1].astype(np.int32)
    inputs, targets = row[:-1].copy(), row[1:].copy()
    targets[ASK_EVERY - 1 :: ASK_EVERY] = 4 + which
    return inputs, targets


config = longnet.Config(
    vocab_size=4 + len(species), position="rope", norm_placement="pre", **SETTINGS["model"]
)
model = longnet.LongNet(config, seed=0, device=DEVICE, dtype=SETTINGS["dtype"])
optimizer = AdamW(model.parameters(), weight_decay=0.1)
rng = np.random.default_rng(1)
lengths, steps, count, start = SETTINGS["lengths"], SETTINGS["steps"], 0, perf_counter()
for step in range(steps):
    length = lengths[step % len(lengths)]
    begins = [int(rng.integers(len(bases) - length)) for bases in train]
    rows = [window(bases, i, begins[i], length) for i, bases in enumerate(train)]
    inputs, targets = (longnet.Tensor(np.stack(x)).to(DEVICE) for x in zip(*rows, strict=True))
    new = len(species) * length
    loss = model.loss(inputs, targets, count=new, recompute=SETTINGS["recompute"])
    loss.backward()
    factor, _ = clip_factor(model.parameters(), max_norm=1.0)
    share = min(1, (step + 1) / 10, 2 * (1 - step / steps))
    optimizer.step(SETTINGS["learning_rate"] * share, factor)
    optimizer.zero_grad()
    count += new
longnet.synchronize(DEVICE)
print(
    f"{model.num_parameters():,} parameters, {count:,} bases read in "
    f"{perf_counter() - start:.0f} s; the genomes have {sum(map(len, train)):,}"
)

# %% [markdown]
# ## The Markov model
#
# It counts what follows each of the 4¹² contexts of twelve bases in *all* training genomes. Where
# it has seen little, eight bases, three and none help: the counts of each order are added to eight
# more, spread as the next lower order predicts. It reads every training base, many times as many
# as LongNet did.


# %%
def contexts(bases, order):
    """The `order` bases before each place from `order` on, as a number."""
    number = np.zeros(len(bases) - order, np.int64)
    for i in range(order):
        number = number * 4 + bases[i : len(bases) - order + i]
    return number


class Markov:
    """Counts of several orders, each falling back on the one before."""

    def __init__(self, sources, orders):
        self.tables = {}
        for order in orders:
            codes = [contexts(bases, order) * 4 + bases[order:] for bases in sources]
            self.tables[order] = np.unique(np.concatenate(codes), return_counts=True)
        self.longest = max(orders)

    def bits(self, bases):
        """Of each base from the first with a whole context on."""
        p = np.full((len(bases) - self.longest, 4), 0.25)
        for order, (keys, counts) in self.tables.items():
            codes = contexts(bases, order)[self.longest - order :, None] * 4 + np.arange(4)
            where = np.minimum(np.searchsorted(keys, codes), keys.size - 1)
            seen = np.where(keys[where] == codes, counts[where], 0)
            p = (seen + 8 * p) / (seen.sum(axis=1, keepdims=True) + 8)
        return -np.log2(np.take_along_axis(p, bases[self.longest :, None].astype(int), 1)[:, 0])


start = perf_counter()
markov = {order: Markov(train, [o for o in (0, 3, 8, 12) if o <= order]) for order in (0, 3, 12)}
seconds = perf_counter() - start
print(
    f"{markov[12].tables[12][0].size:,} different sequences of 13 bases, counted in {seconds:.0f} s"
)

# %% [markdown]
# ## Next-base bits
#
# The first 131,072 held-out bases of each genome, read in one go: 32 times the longest training
# window. Two bits a base are a random sequence.


# %%
def read(inputs):
    """Log-probabilities of bases (N, 4), and of species (N, 6), after each position, in nats."""
    with no_grad():
        logits = model.logits(longnet.Tensor(inputs[None]).to(DEVICE)).data
    logits = logits.to("cpu").numpy()[0].astype(np.float64)
    parts = logits[:, :4], logits[:, 4:]  # it is known which of the two is asked
    return [x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in parts]


def species_at_end(rows):
    """Log-probabilities of species (B, 6), in nats, after each of the rows (B, N) of bases."""
    inputs = longnet.Tensor(rows.astype(np.int32)).to(DEVICE)
    with no_grad():
        last = model.logits(inputs).data.to("cpu").numpy()[:, -1, 4:].astype(np.float64)
    return last - np.log(np.exp(last).sum(axis=-1, keepdims=True))


asked = np.arange(1, LONG + 1) % ASK_EVERY == 0
bits = {"LongNet": [], **{f"Markov, order {order}": [] for order in markov}}
by_place, answers = [], []
for which, bases in enumerate(held_out):
    of_bases, of_species = read(window(bases, which, 0, LONG)[0])
    own = -np.take_along_axis(of_bases, bases[1 : LONG + 1, None].astype(int), 1)[:, 0] / np.log(2)
    by_place.append(np.where(asked, np.nan, own))
    answers.append(of_species[asked])
    bits["LongNet"].append(np.nanmean(by_place[-1]))
    for order, counts in markov.items():
        bits[f"Markov, order {order}"].append(counts.bits(bases[: LONG + 1]).mean())
print(f"{'bits a base':17}" + "".join(f"{name:>15}" for name in [*species, "mean"]))
for name, each in bits.items():
    print(f"{name:17}" + "".join(f"{value:15.3f}" for value in [*each, np.mean(each)]))
mean = {name: np.mean(each) for name, each in bits.items()}

# %% [markdown]
# ## By what was read before
#
# Nothing crosses the end of the longest segment, here of 4,096 bases: the long reading is many
# readings one after another. Their mean by the place in the segment, on the left, shows what
# context is worth. On the right is how often the species is right after so many bases: of up to 64
# stretches from all over the held-out bases, each read anew. Beyond a segment, what is said at the
# ends of the segments of the long reading is averaged. Beside it: the likeliest of six order-3
# Markov models, each of one species, which adds up what all bases of the same stretches say.

# %%
REACH = SETTINGS["model"]["segment_lengths"][-1]
places = np.stack(by_place).reshape(-1, REACH)
edges = 2 ** np.arange(4, int(np.log2(REACH)) + 1)
by_context = [np.nanmean(places[:, a:b]) for a, b in pairwise(edges)]

alone = [Markov([bases], [0, 3]) for bases in train]
evidence = np.stack([[m.bits(bases[:LONG]) for m in alone] for bases in held_out])
answers = np.stack(answers)  # (species, LONG / ASK_EVERY, species)
reads = 2 ** np.arange(4, int(np.log2(LONG)) + 1)
known, stretches = {"LongNet": [], "six Markov models, order 3": []}, []
for n in reads:
    begins = np.linspace(0, LONG - n, min(LONG // n, 64)).astype(int)
    if n < REACH:
        rows = [np.stack([bases[i : i + n] for i in begins]) for bases in held_out]
        said = np.stack([species_at_end(of_one) for of_one in rows])
    else:
        ends = answers[:, REACH // ASK_EVERY - 1 :: REACH // ASK_EVERY]
        said = ends.reshape(len(species), begins.size, -1, len(species)).mean(axis=2)
    # of a stretch's bases, those that have a whole context in it
    bits_of_each = np.stack([evidence[..., i : i + n - 3].sum(axis=-1) for i in begins], axis=-1)
    truth = np.arange(len(species))[:, None]
    known["LongNet"].append((said.argmax(axis=2) == truth).mean())
    known["six Markov models, order 3"].append((bits_of_each.argmin(axis=1) == truth).mean())
    stretches.append(truth.size * begins.size)

fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.3), layout="constrained")
axes[0].semilogx(edges[:-1], by_context, "o-", label="LongNet", base=2)
for name, value in list(mean.items())[1:]:
    axes[0].axhline(value, color="0.5", ls=":", lw=1)
    axes[0].annotate(name, (edges[0], value), fontsize=7, va="bottom")
axes[0].set(xlabel="bases before, at least", ylabel="bits a base, mean of six")
for name, shares in known.items():
    axes[1].semilogx(reads, np.multiply(shares, 100), "o-", label=name, base=2)
axes[1].axvline(REACH, color="0.8", lw=1)
axes[1].axhline(100 / 6, color="0.5", ls=":", lw=1, label="chance")
axes[1].set(xlabel="bases read", ylabel="species right, %", ylim=(0, 103))
axes[1].legend(frameon=False, fontsize=8, loc="lower right")
plt.show()
for n, count, *shares in zip(reads, stretches, *known.values(), strict=True):
    print(
        f"{n:8,} bases, {count:3} stretches: "
        + ", ".join(f"{k} {x:4.0%}" for k, x in zip(known, shares, strict=True))
    )

at_reach = list(reads).index(REACH)
assert mean["LongNet"] < mean["Markov, order 3"] < mean["Markov, order 0"]
assert known["LongNet"][at_reach] > 2 / 6
assert known["six Markov models, order 3"][at_reach] >= known["LongNet"][at_reach]
if REAL and DEVICE == "cpu":
    assert mean["Markov, order 12"] < mean["LongNet"]
    assert np.less(bits["LongNet"], bits["Markov, order 12"]).sum() >= 3

# %% [markdown]
# With a million bases read once, LongNet is better than order 3, which counts all ten million. In
# the mean of the genomes the order-12 model is better still. It owes that to the human chromosome,
# probably from stretches that it has counted before; of four of the other five LongNet knows
# more.
#
# As to the species, LongNet knows a third of them after 32 bases, and less than half after a
# thousand; the six Markov models are far better. They add up the evidence of each base by
# construction, a sum that LongNet would have to learn, and has not in so few steps. The curve on
# the left is flat too: beyond sixteen bases it uses hardly anything. That a long context is there
# does not mean that it is used: this is why it is measured.
#
# ## Larger, on a GPU
#
# Set `DEVICE = "cuda"` in the first cell and run all: twenty million bases of each genome, where
# it has as many, segments up to 131,072 bases, so that the long reading is one, and a hundred times
# the parameters. `python bench/notebooks.py --save` runs every notebook so, and writes what they
# print to `bench/results/notebooks_cuda.txt`.
