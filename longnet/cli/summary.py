"""What ``longnet train`` prints when the training is done."""

from __future__ import annotations

import math
from pathlib import Path

from longnet.errors import LongNetError
from longnet.evaluate import NgramBits, ngram_bits_per_byte
from longnet.evaluate.perplexity import Evaluation
from longnet.generate import generate
from longnet.train import LOSS_CURVE, METRICS, Trainer, plot_loss, read_metrics
from longnet.train.data import RunData
from longnet.train.task_data import TaskData

_NGRAM_TOKENS = 1 << 24  # the baselines have long seen enough then
_PROMPT_TOKENS = 128
_NEW_TOKENS = 256
_MARK = "\N{BLACK RIGHT-POINTING TRIANGLE}"


def print_summary(trainer: Trainer, evaluation: Evaluation, checkpoint: Path) -> None:
    """Print how good the model is beside what needs none, and where its files lie."""
    curve = trainer.out_dir / LOSS_CURVE
    if isinstance(trainer.data, TaskData):
        baselines = {}
        _print_task(trainer.data, trainer, evaluation)
    else:
        baselines = _print_text(trainer.data, trainer, evaluation)
    try:
        plot_loss(read_metrics(trainer.out_dir / METRICS), curve, baselines)
        drawn = str(curve)
    except LongNetError as error:  # the model is trained and saved all the same
        drawn = f"not drawn: {error}"
    print(f"\nloss curve  {drawn}\ncheckpoint  {checkpoint}\ntime        {trainer.clock.summary()}")


def _print_task(data: TaskData, trainer: Trainer, evaluation: Evaluation) -> None:
    """Print the accuracy on a task."""
    name, length = data.train.name, data.length
    print(
        f"\naccuracy {evaluation.accuracy:.4f} on {len(data.examples)} held-out examples of "
        f"{length:,} tokens\n({data.comparison()})\n\nother lengths: "
        f"longnet evaluate --checkpoint {trainer.out_dir} --task {name} "
        f"--lengths {length},{2 * length},{4 * length}"
    )


def _print_text(data: RunData, trainer: Trainer, evaluation: Evaluation) -> dict[str, float]:
    """Print bits per byte beside n-grams', and text that the model writes; return the n-grams'."""
    with trainer.clock("n-grams"):
        ngrams = _ngrams(trainer)
    bits = evaluation.bits_per_byte
    unit = "bits per byte" if bits is not None else "bits per token"
    amount = f"{data.num_bytes:,} bytes" if bits is not None else f"{data.targets.size:,} tokens"
    bits = evaluation.loss / math.log(2) if bits is None else bits
    print(
        f"\n{unit} of {amount} of validation data:\n"
        f"  unigram  {ngrams.unigram:.3f}\n"
        f"  bigram   {ngrams.bigram:.3f}\n"
        f"  longnet  {bits:.3f}   (perplexity {evaluation.perplexity:.2f} a token)"
    )

    prompt = data.inputs[0, :_PROMPT_TOKENS]
    with trainer.clock("generation"):
        written = generate(trainer.model, prompt, _NEW_TOKENS, temperature=0.8, top_p=0.95)
    print(f"\nvalidation text, and how longnet goes on after {_MARK}:\n")
    print(_quoted(data.decode(prompt) + _MARK + data.decode(written)))

    return ngrams._asdict() if data.is_bytes else {}


def _ngrams(trainer: Trainer) -> NgramBits:
    data = trainer.data
    tokens = data.train.read(0, min(len(data.train), _NGRAM_TOKENS))
    return ngram_bits_per_byte(tokens, data.inputs, data.targets, data.vocab_size, data.num_bytes)


def _quoted(text: str) -> str:
    """`text` set off from what surrounds it, without what would move a terminal's cursor."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text.expandtabs(4))
    return "\n".join(f"  | {line}" for line in shown.split("\n"))
