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
# # Training a small LongNet on code
#
# What `longnet train` does, from Python: half a minute on one core, byte by byte, on the source
# code of Python's own standard library, which is there wherever Python is. Then: how good is it,
# beside what needs no network? How far back does it look? And what does it write?

# %%
import io
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image

import longnet
from longnet.config import RunConfig
from longnet.data import ByteTokenizer, stdlib_source, validation_windows
from longnet.evaluate import ngram_bits_per_byte
from longnet.evaluate.predictions import predict
from longnet.generate import generate
from longnet.train import METRICS, plot_loss, read_checkpoint, read_metrics

DEVICE = "cpu"
SETTINGS = {
    "cpu": {
        "model": {
            "num_layers": 2,
            "embed_dim": 64,
            "num_heads": 4,
            "segment_lengths": [128, 512],
            "dilation_rates": [1, 4],
        },
        "train": {"steps": 800, "batch_size": 2, "sequence_length": 512, "learning_rate": 6e-3},
        "windows": 200,
    },
    "cuda": {
        "model": {
            "num_layers": 6,
            "embed_dim": 512,
            "num_heads": 8,
            "segment_lengths": [512, 2048, 8192],
            "dilation_rates": [1, 4, 8],
        },
        "train": {
            "steps": 400,
            "batch_size": 8,
            "sequence_length": 8192,
            "learning_rate": 1e-3,
            "dtype": "bfloat16",
        },
        "windows": 64,
    },
}[DEVICE]

# %% [markdown]
# ## Configuration
#
# A run is a `RunConfig`: the sections `model`, `data` and `train`, as in a TOML file. What is not
# named keeps its default; an unknown name, a wrong type or two settings that contradict each other
# are refused here, before anything is computed. Two levels of attention: 128 bytes seen whole, 512
# with every fourth row, and four heads, so that each row is some head's.

# %%
folder = TemporaryDirectory()
STEPS = SETTINGS["train"]["steps"]
config = RunConfig.from_dict(
    {
        "model": {"norm_placement": "pre", "position": "rope", **SETTINGS["model"]},
        "train": {
            "out_dir": str(Path(folder.name, "run")),
            "device": DEVICE,
            "warmup_steps": 30,
            "eval_every": 100,
            "eval_sequences": 48,
            "log_every": 10,
            "save_every": STEPS // 8,
            "keep": 8,
            "threads": 1,  # enough for matrices as small as these
            **SETTINGS["train"],
        },
    }
)
trainer = longnet.Trainer(config)
print(f"{trainer.model.num_parameters():,} parameters; {trainer.data.text()}")

# %% [markdown]
# Files are held out whole, by a hash of their path: 7 % of them are never trained on.
#
# ## Training
#
# `train` makes the steps, evaluates, and keeps checkpoints from which `Trainer(config, resume=...)`
# goes on to the bit. Its progress goes to standard error, which is kept out of this page.

# %%
with redirect_stderr(io.StringIO()):
    outcome = trainer.train()

data = trainer.data
train_tokens = data.train.read(0, len(data.train))
ngrams = ngram_bits_per_byte(train_tokens, data.inputs, data.targets, data.vocab_size)
picture = Path(folder.name, "loss.png")
plot_loss(read_metrics(trainer.out_dir / METRICS), picture, ngrams._asdict())
Image(picture.read_bytes(), width=620)

# %% [markdown]
# Bits per byte are what a file would take if this model compressed it. A unigram knows how frequent
# each byte is, a bigram what follows each byte; both have counted all of the training data.

# %%
print(f"unigram  {ngrams.unigram:.2f}")
print(f"bigram   {ngrams.bigram:.2f}")
print(f"longnet  {outcome.evaluation.bits_per_byte:.2f}   bits per byte of files held out")
assert outcome.evaluation.bits_per_byte < ngrams.bigram - 0.5

# %% [markdown]
# ## What longer context buys
#
# Each byte of a window is predicted from all before it: the first from one, the last from all. So
# the loss by position says what context is worth, given enough windows that the texts at each
# position are alike; the bigram, which never looks back, is the check on that. And as checkpoints
# were kept, it can be seen to come.

# %%
length = config.train.sequence_length
windows = validation_windows(stdlib_source("validation"), length, SETTINGS["windows"])
edges = [0, *(1 << i for i in range(length.bit_length()))]
bins = [slice(low, high) for low, high in pairwise(edges)]


def by_position(model):
    """Bits per byte of the windows, by how many bytes came before."""
    bits = predict(model, *windows).nats.reshape(windows[0].shape) / np.log(2)
    return [bits[:, part].mean() for part in bins]


def at_step(step):
    """The model as its checkpoint has it."""
    model = longnet.LongNet(config.model, device=DEVICE, dtype=config.train.dtype)
    model.load_state_dict(read_checkpoint(trainer.out_dir / f"step-{step:08}").arrays["model"])
    return model


bigram = [
    ngram_bits_per_byte(train_tokens, *(x[:, part] for x in windows), 256).bigram for part in bins
]
curves = {step: by_position(at_step(step)) for step in (STEPS // 8, STEPS // 2, STEPS)}

fig, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
ax.plot(edges[1:], bigram, "--", color="0.45", label="bigram")
for i, (step, curve) in enumerate(curves.items()):
    shade = plt.cm.viridis(0.8 - 0.4 * i)
    ax.plot(edges[1:], curve, "o-", markersize=4, color=shade, label=f"after {step} steps")
ax.set_xscale("log", base=2)
ax.set_xticks(edges[1:], [f"{n:,}" for n in edges[1:]])
ax.set(xlabel="bytes of context, at most", ylabel="bits per byte")
ax.grid(color="0.92")
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# At first the model is a bigram at every position. Then the curve falls, and falls as far as it
# goes within ten bytes or so: the rest of a word, the indentation. Hundreds of bytes more are worth
# next to nothing here. They are seen, but this model has not learned to use them.

# %%
early, late = (np.subtract(bigram, curves[step]) for step in (STEPS // 8, STEPS))
print("after", STEPS, "steps: bits per byte won over the bigram, by bytes of context")
print("  ".join(f"{n}: {won:.2f}" for n, won in zip(edges[1:], late, strict=True)))
if DEVICE == "cpu":
    assert abs(early).mean() < 0.3
    assert late[4:].mean() > 0.6
    assert late[-4:].mean() - late[3:6].mean() < 0.2

# %% [markdown]
# And what does it *not* use? Give it the first half of a window twice. Whoever can copy writes the
# second half for nearly nothing: all of it has been seen, 256 bytes ago. This model does not
# notice. (On simpler data, looking up what followed is learned suddenly, in seconds:
# [needles](needle.ipynb).)

# %%
half = length // 2
twice = np.tile(windows[0][:, :half], 2)
bits = predict(trainer.model, twice[:, :-1].copy(), twice[:, 1:].copy()).nats / np.log(2)
bits = bits.reshape(len(twice), -1)
once, again = bits[:, half // 2 : half - 1].mean(), bits[:, half + half // 2 :].mean()
print(f"the second quarter: {once:.2f} bits per byte; the same bytes once more: {again:.2f}")
if DEVICE == "cpu":
    assert abs(once - again) < 0.15

# %% [markdown]
# ## What it writes
#
# `generate` reads a prompt and adds bytes one at a time over a cache; a seed makes the choice the
# same every time. After ▶ everything is the model's: it has the look of the language, some of its
# words, and no meaning.

# %%
tokenizer = ByteTokenizer()
prompt = "class Reader:\n    def read(self, size"
written = generate(
    trainer.model, tokenizer.encode(prompt), 400, temperature=0.9, top_p=0.95, seed=0
)
assert len(written) == 400
print(f"{prompt}▶{tokenizer.decode(written)}")

# %% [markdown]
# ## Larger, on a GPU
#
# Set `DEVICE = "cuda"` in the first cell: six layers of 512 in bfloat16, at length 8,192.
# `python bench/notebooks.py --save` runs every notebook so, and writes what they print to
# `bench/results/notebooks_cuda.txt`. Other data is a path in the section `data`:
# `{"train": "folder/of/code"}`. What this loop makes of seven
# and a half minutes on one H100, with 85 million parameters at length 32,768 on the C code of the
# Linux kernel, is in `bench/results/train_code.txt`: 0.914 bits per byte of folders held out, where
# a bigram has 4.32.
