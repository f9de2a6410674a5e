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
# # The digest of a long document
#
# Eight facts are scattered through a document, among small talk and among facts that were true
# once. Its digest says them in a fixed order, which is not that of the document. Whoever writes it
# must have read everything: the beginning does not say it, nor does the end.
#
# The documents are generated, from 100 words, and the model is small enough to learn this on two
# cores while you wait. It shows what a digest asks of a long context; it is no summary of prose.

# %%
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

import longnet
from longnet.evaluate.metrics import rouge_l, standard_error
from longnet.generate import generate_batch
from longnet.optim import AdamW, clip_factor

DEVICE = "cpu"  # "cuda": documents 32 times as long, a larger model; see the last cell
SETTINGS = {
    "cpu": {
        "words": 512,
        "shortest": 128,
        "steps": 400,
        "batch_words": 4096,
        "learning_rate": 5e-3,
        "dtype": "float32",
        "model": {
            "num_layers": 2,
            "embed_dim": 64,
            "num_heads": 2,
            "ffn_dim": 128,
            "segment_lengths": [512],
            "dilation_rates": [1],
        },
    },
    "cuda": {
        "words": 16384,
        "shortest": 128,
        "steps": 1500,
        "batch_words": 65536,
        "learning_rate": 2e-3,
        "dtype": "bfloat16",
        "model": {
            "num_layers": 4,
            "embed_dim": 256,
            "num_heads": 4,
            "segment_lengths": [[1024, 4096, 16384], [16384], [1024, 4096, 16384], [16384]],
            "dilation_rates": [[1, 2, 4], [1], [1, 2, 4], [1]],
        },
    },
}[DEVICE]
WORDS = SETTINGS["words"]

# %% [markdown]
# ## Documents
#
# "mayor is Ada" is a fact, "mayor was Bo" was one. Each of eight things is stated once as it is
# and once as it was, anywhere. After the last word comes `digest:`, and then each thing and what
# it is.

# %%
THINGS = {
    "mayor": "Ada Bo Cy Dee Eli Fay Gus Hal",
    "city": "Oslo Rome Lima Cairo Delhi Quito Perth Seoul",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday today",
    "price": "ten twenty thirty forty fifty sixty seventy eighty",
    "cargo": "salt wool iron wine tea rice coal glass",
    "wind": "north south east west calm storm breeze gale",
    "ship": "Argo Beagle Calypso Discovery Endeavour Fram Golden Hispaniola",
    "colour": "red blue green white black brown grey gold",
}
TALK = [
    ["people", "birds", "children", "sailors", "cooks", "dogs", "neighbours", "guests"],
    ["sing", "walk", "talk", "sleep", "wait", "laugh", "work", "dance"],
    ["here", "there", "slowly", "often", "again", "together", "outside", "tonight"],
]
things = list(THINGS)
words = [*things, "is", "was", "meanwhile", ".", "digest:"]
words += [word for group in [*(v.split() for v in THINGS.values()), *TALK] for word in group]
number = {word: i for i, word in enumerate(words)}
VALUE = np.array([[number[v] for v in values.split()] for values in THINGS.values()])
CHAT = np.array([[number[word] for word in group] for group in TALK])
THING, FORM = np.arange(8), 2 * 8


def make_document(rng, length):
    """Tokens (length,), the last 17 of which are `digest:` and the digest, and facts' places."""
    room = length - FORM - 1
    sentences = round(room / 4.5)
    text = np.empty((sentences, 5), np.int32)
    text[:] = number["meanwhile"], 0, 0, 0, number["."]
    text[:, 1:4] = CHAT[np.arange(3), rng.integers(8, size=(sentences, 3))]
    values = np.array([rng.choice(8, 2, replace=False) for _ in THING])  # now, and once
    at = rng.choice(sentences, (8, 2), replace=False)
    for tense, verb in enumerate(("is", "was")):
        text[at[:, tense], 1] = THING
        text[at[:, tense], 2] = number[verb]
        text[at[:, tense], 3] = VALUE[THING, values[:, tense]]
    said = np.ones(text.shape, bool)  # as many begin with "meanwhile" as fill the room
    said[rng.permutation(sentences)[room - 4 * sentences :], 0] = False
    place = said.cumsum().reshape(said.shape) - 1
    form = np.stack([THING, VALUE[THING, values[:, 0]]], axis=1).ravel()
    tokens = np.concatenate([text[said], [number["digest:"]], form])
    return tokens.astype(np.int32), place[at[:, 0], 3]


def spell(tokens):
    """The text of tokens."""
    return " ".join(words[token] for token in tokens)


document, places = make_document(np.random.default_rng(0), WORDS)
print(f"{len(words)} words; a document of {WORDS} begins")
print(" ", spell(document[:40]), "...")
print(f"and ends\n  ... {spell(document[-FORM - 13 :])}")

# %% [markdown]
# ## Training
#
# As with any language model, by the next token, but only those of the digest count (`-100`: the
# target does not count). The first third of the training has documents of 128 words, then longer
# ones take turns with them: where to look is learned on short ones, in a fraction of the time.
#
# At 512 words one level without dilation is cheap, and lets each word of the digest see each of
# the document. With the levels `[256, 512]` and `[1, 2]`, 600 steps brought ROUGE-L to 0.62: half
# of the words before the last segment are not seen, and have to come by way of their neighbours.
# With the GPU's settings layers of three levels and layers that see everything take turns.

# %%
config = longnet.Config(
    vocab_size=len(words), position="rope", norm_placement="pre", **SETTINGS["model"]
)
model = longnet.LongNet(config, seed=0, device=DEVICE, dtype=SETTINGS["dtype"])
optimizer = AdamW(model.parameters(), weight_decay=0.1)
rng = np.random.default_rng(1)
lengths = [n for n in (WORDS >> k for k in range(20)) if n >= SETTINGS["shortest"]]
steps, curves, start = SETTINGS["steps"], {n: [] for n in lengths}, perf_counter()
for step in range(steps):
    length = lengths[-1] if 3 * step < steps else lengths[step % len(lengths)]
    count = min(64, SETTINGS["batch_words"] // length)
    rows = np.stack([make_document(rng, length)[0] for _ in range(count)])
    targets = rows[:, 1:].copy()
    targets[:, :-FORM] = -100
    inputs, targets = (longnet.Tensor(x).to(DEVICE) for x in (rows[:, :-1].copy(), targets))
    loss = model.loss(inputs, targets, count=FORM * len(rows))
    loss.backward()
    factor, _ = clip_factor(model.parameters(), max_norm=1.0)
    share = min(1, (step + 1) / 20, 2 * (1 - step / steps))
    optimizer.step(SETTINGS["learning_rate"] * share, factor)
    optimizer.zero_grad()
    curves[length].append((step, 2 * loss.item() / np.log(2)))  # things cost nothing soon
print(f"{model.num_parameters():,} parameters, {steps} steps in {perf_counter() - start:.0f} s")

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for length, curve in curves.items():
    ax.plot(*zip(*curve, strict=True), lw=1, label=f"{length} words")
ax.axhline(3, color="0.6", ls=":", label="blind")
ax.axhline(1, color="0.6", ls="--", label="cannot tell is from was")
ax.set(xlabel="step", ylabel="bits a fact", ylim=(0, 4))
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## Digests
#
# The model reads a document up to `digest:` and writes on its own: `generate_batch` takes the most
# likely word each time. Of its digest only the values count; the things before them are always the
# same, and would score by themselves. ROUGE-L is the F-measure of the longest common subsequence
# of words with the true digest.
#
# The baselines read a part and report the values that they find there, as they come: the beginning
# (*lead*, hard to beat on news), the last words (all that a model with a window has), and, with a
# lookout for "is", the whole document in its own order.


# %%
def extract(tokens, now=False):
    """Values among the tokens, or only those that are, up to eight."""
    found = np.isin(tokens, VALUE)
    if now:
        found[1:] &= tokens[:-1] == number["is"]
    return tokens[found][:8]


rng = np.random.default_rng(2)
documents, places = zip(*(make_document(rng, WORDS) for _ in range(64)), strict=True)
documents, places = np.stack(documents), np.stack(places)
texts, truths = documents[:, :-FORM], documents[:, -FORM + 1 :: 2]
start = perf_counter()
written = []
for i in range(0, len(texts), 16):
    written += generate_batch(model, list(texts[i : i + 16]), FORM, temperature=0)
written = np.stack(written)
print(f"{len(texts)} digests written in {perf_counter() - start:.0f} s, such as")
print(f"  {spell(written[0])}")
digests = {
    "LongNet": written[:, 1::2],
    "lead: first 128 words": [extract(text[:128]) for text in texts],
    "last 128 words": [extract(text[-128:]) for text in texts],
    "all that is, as it comes": [extract(text, now=True) for text in texts],
    "guesses": np.stack([VALUE[THING, rng.integers(8, size=8)] for _ in texts]),
}
scores = {}
for name, some in digests.items():
    each = [rouge_l(spell(d), spell(t)) for d, t in zip(some, truths, strict=True)]
    scores[name] = np.mean(each)
    print(f"{name:26} ROUGE-L {scores[name]:.3f} ± {standard_error(each):.3f}")

# %% [markdown]
# ## By the place of the fact
#
# The share of facts that are right, by where in the document they stand. A model that had only
# learned to look at the end would show it here.

# %%
right = digests["LongNet"] == truths
tenth = places * 8 // WORDS
shares = [right[tenth == i].mean() for i in range(8)]
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.bar((np.arange(8) + 0.5) * WORDS / 8, np.multiply(shares, 100), width=0.8 * WORDS / 8)
ax.axhline(100 / 8, color="0.4", ls=":", label="blind")
ax.set(xlabel="word of the document where the fact is", ylabel="facts right, %", ylim=(0, 100))
ax.legend(loc="lower right")
plt.show()
perfect = right.all(axis=1).mean()
print(f"{right.mean():.1%} of the facts are right, {perfect:.0%} of the digests without a fault")

assert right.mean() > 0.8
assert scores["LongNet"] > scores["all that is, as it comes"] + 0.2
assert max(scores["lead: first 128 words"], scores["last 128 words"]) < 0.4

# %% [markdown]
# Neither the beginning nor the end of a document is enough, and the facts in the order in which
# they come are not the digest either. LongNet has both: it finds the facts wherever they are,
# tells them from those that were, and says them in order.
#
# How much is this worth? The language has a hundred words and one way to state a fact. What
# carries over to real documents is the way of measuring: a lead baseline, a window, and the score
# by the place of the evidence. `longnet evaluate --task longbench` does so for published
# summaries.
#
# ## Larger, on a GPU
#
# Set `DEVICE = "cuda"` in the first cell and run all: documents of 16,384 words, four layers.
# Nothing else changes. `python bench/notebooks.py --save` runs every notebook so, and writes what
# they print to `bench/results/notebooks_cuda.txt`.
