"""The training loop."""

from __future__ import annotations

import math
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import longnet
from longnet import blas, checkpoint, random
from longnet.config import RunConfig
from longnet.data import Batches
from longnet.errors import CheckpointError, DataError, DivergenceError, LongNetError
from longnet.evaluate.perplexity import Evaluation, evaluate
from longnet.model import LongNet
from longnet.optim import AdamW, global_norm
from longnet.schedules import make_schedule
from longnet.train.clock import Clock
from longnet.train.data import open_data
from longnet.train.metrics import MetricsFile, read_metrics, validation_record
from longnet.train.plot import plot_loss
from longnet.train.progress import Progress
from longnet.train.signals import StopSignals
from longnet.train.state import check_folder, check_resumable, split_arrays

METRICS = "metrics.jsonl"
LOSS_CURVE = "loss.png"

# A token's share of the loss may be less than float16 can hold: its backward pass is that of a
# larger loss, and the update divides that out.
_LOSS_SCALE = {"float32": 1.0, "bfloat16": 1.0, "float16": 1024.0}


@dataclass(frozen=True)
class Outcome:
    """How `Trainer.train` ended.

    Attributes
    ----------
    checkpoint : Path
        The state it ended in.
    evaluation : Evaluation or None
        Of the last step; None when the run ended early or had no step left to make.
    stopped_by : signal.Signals or None
        The signal that ended it.
    """

    checkpoint: Path
    evaluation: Evaluation | None
    stopped_by: signal.Signals | None


class Trainer:
    """Trains a model as a `RunConfig` says.

    A run resumed from a checkpoint gives bit for bit the weights that an unbroken one gives.

    Parameters
    ----------
    config : RunConfig
        All settings.
    resume : Checkpoint, optional
        What to go on from, as `read_checkpoint` gives it.

    Attributes
    ----------
    config : RunConfig
    out_dir : Path
        Where checkpoints, ``metrics.jsonl`` and ``loss.png`` go.
    data : RunData
    model : LongNet
    optimizer : AdamW
    step, tokens : int
        Updates made, and tokens they were made from.
    clock : Clock
        Where the time went since this object was made.

    Raises
    ------
    LongNetError
        Settings, data or checkpoint do not fit each other, or the folder holds checkpoints that
        are not resumed.
    """

    def __init__(self, config: RunConfig, *, resume: checkpoint.Checkpoint | None = None) -> None:
        check_folder(config, resume)
        settings = config.train
        self.config = config
        self.out_dir = Path(settings.out_dir)
        self.clock = Clock()
        self._schedule = make_schedule(
            settings.schedule,
            learning_rate=settings.learning_rate,
            steps=settings.steps,
            warmup_steps=settings.warmup_steps,
            end_learning_rate=settings.end_learning_rate,
            power=settings.schedule_power,
            decay_fraction=settings.decay_fraction,
        )
        if settings.threads is not None:
            longnet.set_num_threads(settings.threads)
            blas.set_num_threads(settings.threads)
        self.data = open_data(config)
        self._batches = Batches(
            self.data.train, settings.batch_size, settings.sequence_length, settings.seed
        )
        if resume is not None:
            check_resumable(config, self.data.tokenizer.fingerprint, resume)
        self.model = LongNet(
            config.model, seed=settings.seed, dtype=settings.dtype, device=settings.device
        )
        self.optimizer = AdamW(
            self.model.parameters(),
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
        self._random = random.RandomState(settings.seed)
        self.step = self.tokens = 0
        self._seconds = 0.0
        self._saved: Path | None = None  # the checkpoint that holds the present state
        if resume is not None:
            self._restore(resume)

    def train(self) -> Outcome:
        """Train until all steps are made, or until SIGTERM or Ctrl-C, and save.

        A signal lets the step end. A second Ctrl-C raises KeyboardInterrupt at once.

        Raises
        ------
        DivergenceError
            The loss or the gradients are not finite. Checkpoints are left as they are.
        LongNetError
            A file cannot be written. Earlier checkpoints are left as they are.
        """
        try:
            self.out_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LongNetError(f"{self.out_dir}: cannot be made: {error.strerror}") from error
        with (
            MetricsFile(self.out_dir / METRICS, self.step) as metrics,
            StopSignals() as stop,
            Progress(self.step, self.config.train.steps) as progress,
            np.errstate(over="ignore", invalid="ignore"),  # losses are checked
        ):
            evaluation = self._loop(metrics, stop, progress)
            saved = self._saved or self._save(metrics)
        return Outcome(saved, evaluation, stop.received)

    def evaluate(self) -> Evaluation:
        """Score the windows of the validation data."""
        settings, data = self.config.train, self.data
        with self.clock("evaluation"):
            return evaluate(
                self.model,
                data.inputs,
                data.targets,
                num_bytes=data.num_bytes,
                batch_size=settings.batch_size,
                chunk=settings.loss_chunk,
            )

    def _loop(
        self, metrics: MetricsFile, stop: StopSignals, progress: Progress
    ) -> Evaluation | None:
        """Make the steps that are left; return the evaluation of the very last one."""
        settings = self.config.train
        before, start = self._seconds, perf_counter()
        recorded, spent = self.tokens, 0.0
        evaluation = None
        while self.step < settings.steps and stop.received is None:
            began = perf_counter()
            record = self._update()
            spent += perf_counter() - began
            record["tokens_per_second"] = round((self.tokens - recorded) / spent, 1)
            progress.update(self.step, record["loss"], record["tokens_per_second"])
            last = self.step == settings.steps
            evaluates = last or self.step % settings.eval_every == 0
            if evaluates:
                evaluation = self.evaluate()
                self._check_finite(self.step, "validation loss", evaluation.loss)
                record |= validation_record(evaluation)
                progress.note(_sentence(self.step, evaluation))
            self._seconds = before + perf_counter() - start
            if evaluates or self.step % settings.log_every == 0:
                metrics.write(record | {"seconds": round(self._seconds, 3)})
                recorded, spent = self.tokens, 0.0
            if self.step % settings.save_every == 0:
                self._save(metrics)
        return evaluation if self.step == settings.steps else None

    def _update(self) -> dict[str, Any]:
        """Make one update of the weights; return its record."""
        settings = self.config.train
        step = self.step + 1
        self._saved = None
        self.optimizer.zero_grad()
        total = 0.0
        for _ in range(settings.accumulate):
            with self.clock("data"):
                inputs, targets = next(self._batches)
            with self.clock("forward"), random.use(self._random):
                loss = self.model.loss(
                    inputs,
                    targets,
                    chunk=settings.loss_chunk,
                    checkpoint_blocks=settings.checkpoint_blocks,
                )
            self._check_finite(step, "loss", loss.item())
            total += loss.item()
            with self.clock("backward"):
                loss.backward(_LOSS_SCALE[settings.dtype])
        with self.clock("update"):
            parts = settings.accumulate * _LOSS_SCALE[settings.dtype]
            norm = global_norm(self.model.parameters()) / parts
            self._check_finite(step, "gradient norm", norm)
            # The mean over the micro-batches and the clipping in one factor.
            scale = min(1.0, settings.clip / max(norm, 1e-30)) / parts
            learning_rate = self._schedule(self.step)
            self.optimizer.step(learning_rate, grad_scale=scale)
        self.step = step
        self.tokens += settings.accumulate * inputs.size
        record: dict[str, Any] = {"step": step, "loss": total / settings.accumulate}
        if self.data.is_bytes:
            record["bits_per_byte"] = record["loss"] / math.log(2)
        return record | {
            "learning_rate": learning_rate,
            "grad_norm": norm,
            "tokens": self.tokens,
        }

    def _check_finite(self, step: int, name: str, value: float) -> None:
        if not math.isfinite(value):
            newest = checkpoint.latest(self.out_dir)
            raise DivergenceError(
                f"step {step}: found {name} {value}, expected a finite number; "
                f"{'no checkpoint yet' if newest is None else f'the last checkpoint is {newest}'}"
            )

    def _save(self, metrics: MetricsFile) -> Path:
        """Write a checkpoint, then draw the loss curve; return where the checkpoint lies."""
        with self.clock("checkpoint"):
            weights = self.model.state_dict()
            for name, array in weights.items():
                self._check_finite(self.step, name, float(np.abs(array).max()))
            metrics.sync()  # no checkpoint without the records that led to it
            arrays, numbers = split_arrays(self.optimizer.state_dict())
            saved = self._saved = checkpoint.save(
                self.out_dir,
                self.step,
                {"model": weights, "optimizer": arrays},
                {
                    "config": self.config.to_dict(),
                    "tokenizer": self.data.tokenizer.fingerprint,
                    "data": self._batches.state_dict(),
                    "random": self._random.state_dict(),
                    "optimizer": numbers,
                    "tokens": self.tokens,
                    "seconds": self._seconds,
                },
                keep=self.config.train.keep,
            )
        with self.clock("loss curve"):
            try:
                plot_loss(read_metrics(self.out_dir / METRICS), self.out_dir / LOSS_CURVE)
            except LongNetError as error:
                # A picture that can be drawn later is no reason to end a run.
                warnings.warn(str(error), stacklevel=2)
        return saved

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        state = saved.state
        try:
            self.model.load_state_dict(saved.arrays["model"])
            self.optimizer.load_state_dict(saved.arrays["optimizer"] | state["optimizer"])
            self._random.load_state_dict(state["random"])
            self._batches.load_state_dict(state["data"])
        except (CheckpointError, DataError) as error:
            raise type(error)(f"{saved.path}: {error}") from error
        self.step, self.tokens, self._seconds = saved.step, state["tokens"], state["seconds"]
        if saved.path.parent.resolve() == self.out_dir.resolve():
            self._saved = saved.path


def _sentence(step: int, evaluation: Evaluation) -> str:
    text = f"step {step}: validation loss {evaluation.loss:.3f}"
    if evaluation.bits_per_byte is not None:
        text += f", {evaluation.bits_per_byte:.3f} bits per byte"
    return text
