"""The training loop."""

from __future__ import annotations

import math
import signal
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from longnet import blas, checkpoint, random, set_num_threads
from longnet.anomaly import detect_anomaly
from longnet.config import RunConfig
from longnet.data import Batches
from longnet.errors import DivergenceError, LongNetError
from longnet.evaluate.perplexity import Evaluation, evaluate
from longnet.model import LongNet
from longnet.optim import AdamW, clip_factor
from longnet.schedules import make_schedule
from longnet.train.backlog import Backlog
from longnet.train.clock import Clock
from longnet.train.data import open_data
from longnet.train.feed import Feed
from longnet.train.memory import explain_shortage
from longnet.train.metrics import MetricsFile, read_metrics, validation_record, validation_text
from longnet.train.plot import plot_loss
from longnet.train.progress import Progress
from longnet.train.signals import StopSignals
from longnet.train.speed import Speedometer
from longnet.train.state import check_folder, check_resumable, restore, snapshot

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

    A resumed run gives the bits of an unbroken one; on a GPU with `train.deterministic`.

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
    batches : Feed
    model : LongNet
    optimizer : AdamW
    random : RandomState
        Where dropout's seeds come from.
    step, tokens : int
        Updates made, and tokens they were made from.
    seconds : float
        That the run took so far, those before a resumption included.
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
            set_num_threads(settings.threads)
            blas.set_num_threads(settings.threads)
        self.data = open_data(config)
        batches = Batches(
            self.data.train, settings.batch_size, settings.sequence_length, settings.seed
        )
        self.batches = Feed(batches, settings.device)
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
            dtype=settings.dtype,
            stochastic_rounding=settings.stochastic_rounding,
            seed=settings.seed,
        )
        self.random = random.RandomState(settings.seed)
        self.step = self.tokens = 0
        self.seconds = 0.0
        self._saved: Path | None = None  # the checkpoint that holds the present state
        if resume is not None:
            restore(self, resume)
            if resume.path.parent.resolve() == self.out_dir.resolve():
                self._saved = resume.path

    def train(self) -> Outcome:
        """Train until all steps are made, or until SIGTERM or Ctrl-C, and save.

        A signal lets the step end. A second Ctrl-C raises KeyboardInterrupt at once.

        Raises
        ------
        DivergenceError
            The loss or the gradients are not finite. Checkpoints are left as they are.
        OutOfMemoryError
            A step does not fit; on a GPU the message says what would. Checkpoints are left.
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
            ExitStack() as watch,
        ):
            if self.config.train.detect_anomaly:
                watch.enter_context(detect_anomaly())
            evaluation = explain_shortage(self, lambda: self._loop(metrics, stop, progress))
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
        before, start = self.seconds, perf_counter()
        speed = Speedometer(self.model, settings, self.tokens)
        backlog = Backlog()
        evaluation = None

        def settle(*, wait: bool) -> list[dict[str, Any]]:
            """Take in the updates that are done: check them, show them."""
            with speed:
                records = list(backlog.take(wait=wait))
            for record in records:
                self._check_finite(record["step"], "loss", record["loss"])
                self._check_finite(record["step"], "gradient norm", record["grad_norm"])
                record |= speed.reading(record["tokens"])
                progress.update(record)
            return records

        def write(records: list[dict[str, Any]]) -> None:
            self.seconds = before + perf_counter() - start
            for record in records:
                if "validation_loss" in record or record["step"] % settings.log_every == 0:
                    metrics.write(self._complete(record))
                    speed.restart(record["tokens"])

        while self.step < settings.steps and stop.received is None:
            with speed:
                self._update(backlog)
            evaluates = self.step == settings.steps or self.step % settings.eval_every == 0
            saves = self.step % settings.save_every == 0
            # A GPU is waited for only where its numbers are needed at once.
            records = settle(wait=evaluates or saves)
            if evaluates:
                evaluation = self.evaluate()
                self._check_finite(self.step, "validation loss", evaluation.loss)
                records[-1] |= validation_record(evaluation)
                progress.note(validation_text(self.step, evaluation))
            write(records)
            if saves:
                self._save(metrics)
        write(settle(wait=True))  # of a run that was stopped
        return evaluation if self.step == settings.steps else None

    def _update(self, backlog: Backlog) -> None:
        """Queue one update of the weights; its record goes to the backlog."""
        settings = self.config.train
        self._saved = None
        self.optimizer.zero_grad()
        losses = []
        for _ in range(settings.accumulate):
            with self.clock("data"):
                batch = next(self.batches)
            with self.clock("forward"), random.use(self.random):
                loss = self.model.loss(
                    batch.inputs,
                    batch.targets,
                    count=batch.targets.size,
                    chunk=settings.loss_chunk,
                    recompute=settings.recompute,
                    deterministic=settings.deterministic,
                )
            losses.append(loss.data)
            with self.clock("backward"):
                loss.backward(_LOSS_SCALE[settings.dtype])
        with self.clock("update"):
            learning_rate = self._schedule(self.step)
            factor, norm = clip_factor(
                self.model.parameters(),
                settings.clip,
                divisor=settings.accumulate * _LOSS_SCALE[settings.dtype],
            )
            self.optimizer.step(learning_rate, factor)
        self.step += 1
        self.tokens += settings.accumulate * batch.inputs.size
        record = {"step": self.step, "tokens": self.tokens, "learning_rate": learning_rate}
        backlog.add(record, losses, norm)

    def _complete(self, record: dict[str, Any]) -> dict[str, Any]:
        """What the metrics file keeps of an update."""
        if self.data.is_bytes:
            record["bits_per_byte"] = record["loss"] / math.log(2)
        return record | {"seconds": round(self.seconds, 3)}

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
            arrays, state = snapshot(self)
            for name, array in arrays["model"].items():
                self._check_finite(self.step, name, float(np.abs(array).max()))
            metrics.sync()  # no checkpoint without the records that led to it
            keep = self.config.train.keep
            saved = self._saved = checkpoint.save(self.out_dir, self.step, arrays, state, keep)
        with self.clock("loss curve"):
            try:
                plot_loss(read_metrics(self.out_dir / METRICS), self.out_dir / LOSS_CURVE)
            except LongNetError as error:
                # A picture that can be drawn later is no reason to end a run.
                warnings.warn(str(error), stacklevel=2)
        return saved
