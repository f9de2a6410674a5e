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
# # Needles, and what is lost in the middle
#
# A model that *takes* long inputs need not *use* them. Two tests are common: a fact hidden at any
# depth of a text of any length (the needle in a haystack), and one pair asked for out of many
# (key-value retrieval, known for the accuracy that is "lost in the middle"). Here a small LongNet
# learns to find, and is then asked at up to 16 times the length that it was trained on.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

import longnet
from longnet import blas, tasks
from longnet.evaluate.figures import draw_cells
from longnet.evaluate.tasks import evaluate_task, held_out, score_examples
from longnet.optim import AdamW
from longnet.schedules import make_schedule
from longnet.tasks.symbols import SymbolTask, ask

DEVICE = "cpu"
SETTINGS = {
    "cpu": {
        "embed_dim": 64,
        "num_heads": 2,
        "dtype": "float32",
        "learning_rate": 5e-3,
        "trained": 128,
        "batch_tokens": 2048,
        "examples": 20,
    },
    "cuda": {
        "embed_dim": 128,
        "num_heads": 4,
        "dtype": "bfloat16",
        "learning_rate": 2.5e-3,
        "trained": 1024,
        "batch_tokens": 16384,
        "examples": 50,
    },
}[DEVICE]
TRAINED = SETTINGS["trained"]  # tokens of the longest examples that are trained on
LENGTHS = [TRAINED // 2 << i for i in range(6)]
DEPTHS = [i / 6 for i in range(7)]

longnet.set_num_threads(1)  # enough for matrices as small as these
blas.set_num_threads(1)
EVALUATION = {"examples": SETTINGS["examples"], "device": DEVICE}
figures = TemporaryDirectory()


def small_model(vocab_size, **options):
    """Two layers, each of which sees everything, as long as nothing else is said."""
    levels = {"segment_lengths": [LENGTHS[-1]], "dilation_rates": [1]}
    config = longnet.Config(
        vocab_size=vocab_size,
        num_layers=2,
        embed_dim=SETTINGS["embed_dim"],
        num_heads=SETTINGS["num_heads"],
        ffn_dim=2 * SETTINGS["embed_dim"],
        norm_placement="pre",
        position="rope",
        **(levels | options),
    )
    return longnet.LongNet(config, seed=0, device=DEVICE, dtype=SETTINGS["dtype"])


def train(model, batches):
    """One update for each batch; the losses, in nats a token that is asked for."""
    rate = make_schedule(
        "wsd", learning_rate=SETTINGS["learning_rate"], steps=len(batches), warmup_steps=30
    )
    optimizer = AdamW(model.parameters(), betas=(0.9, 0.98))
    losses = []
    for step, (inputs, targets) in enumerate(batches):
        optimizer.zero_grad()
        loss = model.loss(inputs, targets)
        loss.backward()
        factor, _ = optimizer.clip_factor(1.0)
        optimizer.step(rate(step), factor)
        losses.append(loss.data)
    return [float(loss.to("cpu").numpy()) for loss in losses]


def show(cells, name):
    """One of the figures that `longnet evaluate --out FOLDER` draws."""
    draw_cells(cells, figures.name, TRAINED)
    return Image(Path(figures.name, name).read_bytes(), width=620)


# %% [markdown]
# ## The needle as published, in bytes
#
# `longnet.tasks` has the published wordings, a byte a token:

# %%
published = tasks.get("needle")
print(published.decode(published.make(seed=0, index=0, length=320, depth=0.5).tokens))

# %% [markdown]
# The answer counts only if all seven digits are right. A small model that starts from nothing first
# learns the *form* of an answer: digits. A blind guess among ten digits costs ln 10 = 2.30 nats,
# and that is where seconds of training end. *Which* digits is another matter: that takes copying
# from far away, seven times in a row, and none of it has begun.

# %%
in_bytes = small_model(published.vocab_size)
feed = tasks.TaskBatches(published, batch_size=4, length=256, seed=1)
train(in_bytes, [next(feed) for _ in range(160)])
[form] = evaluate_task(in_bytes, published, [256], examples=40, device=DEVICE)
digits = form.loss * 8 / 7  # seven digits and a full stop, which is easy
print(f"{digits:.2f} nats a digit, {form.score:.0%} of the numbers right")
assert abs(digits - np.log(10)) < 0.3
assert form.score == 0

# %% [markdown]
# ## The same question in symbols
#
# So let a key be one token, its value one, and the haystack blanks. The answer is one of 32 values
# instead of ten million numbers, but what it takes to find it is the same: to know which value
# stood behind this key, anywhere before. A task is a class that makes examples.
#
# A needle alone would be a bad test: the only value in sight is the answer, and no key has to be
# read. Seven other pairs lie in the haystack too, so that naming *a* value that is shown scores
# 1/8. That is this task's shortcut; chance is 1/32.


# %%
class Needles(SymbolTask):
    """Pairs among blanks, and one of them asked for; without a depth, as for training, all are."""

    name, paper = "needles among blanks", "this notebook"
    minimum_length = 8
    has_depth = True
    shortcut_name = "any value that is shown"
    most_pairs = 32
    symbols = (
        "_",
        *(f"k{i}" for i in range(most_pairs)),
        *(f"v{i}" for i in range(most_pairs)),
    )
    answer_ids = range(1 + most_pairs, 1 + 2 * most_pairs)

    def __init__(self, pairs=8, blanks=True):
        self.pairs, self.blanks = pairs, blanks

    def _make(self, draw, length, depth):
        if depth is None:
            count = min(self.most_pairs, length // 8)
            end = draw.integer(2 * count, length * 3 // 4 + 1) if self.blanks else 2 * count
            shown, order = draw.spaced(end, count, 2), draw.permutation(count)
        else:
            end = length - 1
            count = min(self.pairs, end // 2)
            others = draw.spaced(end - 2, count - 1, 2)
            place = round(depth * (end - 2))
            place += place - 1 in others  # not between a key and its value
            shown = np.append(others + 2 * (others >= place), place)
            order = np.array([count - 1])
        asked = end + draw.spaced(length + 1 - end, len(order), 2)
        keys = 1 + draw.sample(self.most_pairs, count)
        values = draw.integers(self.answer_ids.start, self.answer_ids.stop, count)
        sequence = np.zeros(length + 1, np.int64)
        sequence[shown], sequence[shown + 1] = keys, values
        sequence[asked], sequence[asked + 1] = keys[order], values[order]
        return ask(sequence, asked + 1, shown[order] + 1)

    def shortcut(self, example):
        shown = example.tokens[example.tokens >= self.answer_ids.start]
        return np.random.default_rng(shown).choice(shown, example.asked.size)


needles, recall = Needles(), Needles(blanks=False)
example = needles.make(seed=0, index=0, length=48, depth=0.5)
print(needles.decode(example.tokens), "->", needles.symbols[example.answers[0]])

# %% [markdown]
# ## Training
#
# Batches take turns in length, from 8 tokens to the longest: with one pair there is nothing to
# confuse, and what is learned there carries over. Two stages: first all pairs stand in front
# (`recall`: what `associative_recall` of `longnet.tasks` asks), then anywhere.

# %%
TURNS = [TRAINED >> i for i in range((TRAINED // 8).bit_length())]


def batches(task, rounds):
    """Batches of every length, `rounds` times."""
    tokens = SETTINGS["batch_tokens"]
    feeds = [tasks.TaskBatches(task, tokens // length, length, seed=1) for length in TURNS]
    return [next(feed) for _ in range(rounds) for feed in feeds]


model = small_model(needles.vocab_size)
losses = train(model, batches(recall, 45))
[recalled] = evaluate_task(model, recall, [TRAINED], **EVALUATION)
early = list(evaluate_task(model, needles, [TRAINED], DEPTHS, **EVALUATION))
losses += train(model, batches(needles, 20))

fig, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
for i in range(0, len(TURNS), 2):
    ax.plot(losses[i :: len(TURNS)], label=f"{TURNS[i]:,} tokens")
ax.axhline(np.log(32), color="0.45", linestyle=":", linewidth=1, label="a blind guess")
ax.axvline(45, color="0.7", linewidth=1)
ax.set(xlabel="round", ylabel="nats an answer", title="45 rounds of recall, then needles")
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# At first the model only names values that are shown: the more pairs, the less that helps. Then,
# within a few rounds and on all lengths at once, it finds out which value belongs to a key. Such
# sudden steps are known of *induction heads* ([arXiv
# 2209.11895](https://arxiv.org/abs/2209.11895)), which take two layers: one that writes into each
# token what stood before it, and one that looks for the key there.
#
# Before the second stage the model is right on all that it was trained on, and finds needles hardly
# anywhere but at the front, where the pairs had stood: a score is a score on that task. A few
# rounds mend it.

# %%
print(f"after the first stage: {recalled.score:.0%} on recall, and on needles by depth:")
print(" ".join(f"{cell.score:.0%}" for cell in early))
assert recalled.score > 0.95
assert np.mean([cell.score for cell in early[1:]]) < 0.6 < early[0].score
assert np.mean(losses[-len(TURNS) :]) < 0.1

# %% [markdown]
# ## Depth and length
#
# The figures are those of `longnet evaluate --task ... --depths ...`. Every cell is a mean of
# examples that no training drew.

# %%
plain = list(evaluate_task(model, needles, LENGTHS, DEPTHS, **EVALUATION))
show(plain, "depth_length.png")


# %%
def at(cells, length):
    """Scores at a length, by depth."""
    return np.array([cell.score for cell in cells if cell.length == length])


assert at(plain, TRAINED).min() > 0.8
assert at(plain, 16 * TRAINED)[:3].mean() < 0.4 < 0.8 < at(plain, 16 * TRAINED)[-1]
show(plain, "length.png")

# %% [markdown]
# Up to the length of its training the model finds needles at every depth. Beyond, it finds those
# near the question and loses the far ones, down to the shortcut: it names some value that is shown.
# Attention reaches them all. What fails are the positions: RoPE turns queries and keys by angles,
# and distances over the trained ones give angles that the model has never met.
#
# ## The same weights, other angles
#
# YaRN stretches the slow angles so that longer distances look like trained ones, and leaves the
# fast ones, which tell neighbours apart ([positions](../docs/positions.md)). That is a setting of
# the configuration; nothing is trained.

# %%
YARN = {"position_scaling": "yarn", "position_factor": 8.0, "position_length": TRAINED}
stretched = small_model(needles.vocab_size, **YARN)
stretched.load_state_dict(model.state_dict())
yarn = list(evaluate_task(stretched, needles, LENGTHS, DEPTHS, **EVALUATION))
print(
    f"at {8 * TRAINED:,} tokens: {at(plain, 8 * TRAINED).mean():.0%} before, "
    f"{at(yarn, 8 * TRAINED).mean():.0%} with YaRN"
)
assert at(yarn, 8 * TRAINED).mean() > at(plain, 8 * TRAINED).mean() + 0.2
show(yarn, "depth_length.png")

# %% [markdown]
# ## Lost in the middle?
#
# Key-value retrieval asks for one of many pairs: here of 32, at first with nothing between them,
# then with more and more blanks. The shortcut is worth 1/32 now, as chance is. Of large language
# models a U is known: they do best with what stands first or last.

# %%
retrieval = Needles(pairs=32)
ALL_PAIRS = 2 * retrieval.most_pairs + 1
lengths = [ALL_PAIRS, 2 * TRAINED, 8 * TRAINED]
retrieved = list(evaluate_task(model, retrieval, lengths, DEPTHS, **EVALUATION))
assert at(retrieved, ALL_PAIRS).min() > 0.8
assert at(retrieved, 8 * TRAINED)[-1] > at(retrieved, 8 * TRAINED)[:4].max()
show(retrieved, "position.png")

# %% [markdown]
# There is half a U at most. Where lengths are those of the training no place is better than
# another, 32 pairs end to end included, of which examples of 128 tokens showed half as many; and
# beyond, what stands last is best, which is what the heat map said. Nothing in this training made
# the beginning of a sequence special.

# %% [markdown]
# ## What a level leaves out
#
# All this was attention to everything: one level, r = 1. LongNet's sparse levels leave keys out,
# and here is what that means for a single fact. The same weights on three levels: a question sees
# its own segment of the shortest level whole, and beyond that, in each head, one row in r. Whether
# it sees the row of the answer can be looked up:

# %%
levels = {"segment_lengths": [TRAINED, 4 * TRAINED, 16 * TRAINED], "dilation_rates": [1, 2, 4]}
mixed = {
    "segment_lengths": [levels["segment_lengths"], [LENGTHS[-1]]],
    "dilation_rates": [levels["dilation_rates"], [1]],
}
length, heads = 4 * TRAINED, SETTINGS["num_heads"]
attention = longnet.DilatedAttention(*levels.values())
seen = sum(attention.visible(length, head=h, heads=heads)[-1] for h in range(heads)) > 0
made = [needles.make(held_out(1), i, length, depth=i / 200) for i in range(200)]
sees = np.array([seen[example.evidence[0]] for example in made])

found = {}
for name, options in (
    ("everything in both layers", {}),
    ("three levels in both layers", levels),
    ("three levels, then everything", mixed),
):
    other = small_model(needles.vocab_size, **YARN, **options)
    other.load_state_dict(model.state_dict())
    scores, *_ = score_examples(other, needles, made, length, batch_size=16)
    found[name] = scores[sees].mean(), scores[~sees].mean()
    print(
        f"{name:30} {found[name][0]:4.0%} of {sees.sum()} answers on rows that the levels show, "
        f"{found[name][1]:4.0%} of {(~sees).sum()} others"
    )
assert found["three levels in both layers"][0] > 0.6
assert found["three levels in both layers"][1] < 0.25
assert min(found["three levels, then everything"]) > 0.8

# %% [markdown]
# What the question sees it mostly finds. What it does not see is gone, and no more than the
# shortcut is left. It takes one layer that sees everything, the last, to have it back;
# `segment_lengths` and `dilation_rates` may be given by layer. These weights know nothing of sparse
# levels. A model that is trained with them can carry a fact to rows that are seen later on, if it
# has layers enough ([how dilated attention sees](receptive_field.ipynb) counts the ways).
#
# ## Larger, on a GPU
#
# Set `DEVICE = "cuda"` in the first cell: a wider model, trained at up to 1,024 tokens and asked at
# up to 16,384. `python bench/notebooks.py --save` runs every notebook so, and writes what they
# print to `bench/results/notebooks_cuda.txt`. [Evaluation](../docs/evaluation.md) has the commands
# that train and evaluate on any task that `longnet.tasks` has by name, in bytes too, and what two
# layers reached after minutes.
