"""The data of a run: what it trains on, and the fixed windows that it is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from longnet.config import RunConfig, TrainConfig
from longnet.data import (
    Batches,
    Tokenizer,
    TokenSource,
    load_tokenizer,
    open_source,
    validation_windows,
)
from longnet.errors import ConfigError
from longnet.evaluate.perplexity import Evaluation, evaluate
from longnet.train.task_data import TaskData, open_task

if TYPE_CHECKING:
    from longnet.model import LongNet
    from longnet.parallel import Mesh


@dataclass(frozen=True)
class RunData:
    """Tokens for training and for evaluation.

    Attributes
    ----------
    tokenizer : Tokenizer
    train : TokenSource
        The training split.
    inputs, targets : numpy.ndarray, (W, N) int32
        Windows of the validation split.
    num_bytes : int or None
        Bytes of text that `targets` stand for; None where no tokenizer says so: the ids are then
        of another one than `tokenizer`, as shards made elsewhere can be.
    vocab_size : int
        Ids lie below it.
    """

    tokenizer: Tokenizer
    train: TokenSource
    inputs: np.ndarray
    targets: np.ndarray
    num_bytes: int | None
    vocab_size: int

    @property
    def is_bytes(self) -> bool:
        """Whether each token is one byte."""
        return self.num_bytes == self.targets.size

    @property
    def fingerprint(self) -> dict[str, str]:
        """What runs on the same data have in common, by setting."""
        windows = blake2b(self.inputs.data, digest_size=16)
        windows.update(self.targets.data)
        return {
            "data.tokenizer": self.tokenizer.fingerprint,
            "data.train": self.train.fingerprint,
            "data.validation": windows.hexdigest(),
        }

    def batches(self, batch_size: int, sequence_length: int, seed: int) -> Batches:
        """Batches to train on."""
        return Batches(self.train, batch_size, sequence_length, seed)

    def evaluate(self, model: LongNet, settings: TrainConfig, mesh: Mesh | None) -> Evaluation:
        """Score the windows."""
        return evaluate(
            model,
            self.inputs,
            self.targets,
            num_bytes=self.num_bytes,
            batch_size=settings.batch_size,
            chunk=settings.loss_chunk,
            mesh=mesh,
        )

    def text(self) -> str:
        """The data in a line."""
        return (
            f"{len(self.train):,} tokens ({self.tokenizer.name}), "
            f"{self.targets.size:,} for validation"
        )

    def decode(self, ids: np.ndarray) -> str:
        """Text of token ids, or the ids themselves where `tokenizer` does not know them."""
        if self.num_bytes is None or (ids.size and ids.max() >= self.tokenizer.vocab_size):
            return " ".join(map(str, ids.tolist()))
        return self.tokenizer.decode(ids)


def open_data(config: RunConfig) -> RunData | TaskData:
    """Open the data, or the task, that a run's settings name.

    Raises
    ------
    ConfigError
        The tokenizer has more tokens than the model.
    DataError
        The data cannot be read, or a split is shorter than one window.
    """
    if config.data.task is not None:
        return open_task(config, config.data.task)
    settings, vocab_size = config.data, config.model.vocab_size
    tokenizer = load_tokenizer(settings.tokenizer)
    if settings.tokenizer is not None and tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"model.vocab_size: found {vocab_size}, expected at least {tokenizer.vocab_size} "
            f"for {tokenizer.name}"
        )
    train, validation = (
        open_source(
            settings.train,
            split,
            tokenizer,
            validation=settings.validation,
            format=settings.format,
            vocab_size=vocab_size,
        )
        for split in ("train", "validation")
    )
    inputs, targets = validation_windows(
        validation, config.train.sequence_length, config.train.eval_sequences
    )
    num_bytes = None
    if int(targets.max()) < tokenizer.vocab_size:
        num_bytes = sum(tokenizer.num_bytes(row) for row in targets) or None
        vocab_size = tokenizer.vocab_size
    return RunData(tokenizer, train, inputs, targets, num_bytes, vocab_size)
