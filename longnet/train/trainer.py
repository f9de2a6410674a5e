"""The training loop."""

from __future__ import annotations

import math
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from longnet import blas, checkpoint, random, set_num_threads
from longnet.anomaly import detect_anomaly
from longnet.communicator import Communicator
from longnet.config import RunConfig
from longnet.data import Batches
from longnet.evaluate.perplexity import Evaluation
from longnet.tasks import TaskBatches
from longnet.train.backlog import Backlog
from longnet.train.clock import Clock
from longnet.train.data import open_data
from longnet.train.feed import Feed
from longnet.train.memory import explain_shortage
from longnet.train.metrics import validation_record
from longnet.train.parts import learning_rates, make_model, make_optimizer
from longnet.train.record import Record, Silence
from longnet.train.signals import StopSignals
from longnet.train.speed import Speedometer
from longnet.train.state import (
    check_finite,
    check_folder,
    check_resumable,
    identity,
    restore,
    save,
)
from longnet.train.world import World

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
        The signal that ended it, on this rank or another.
    """

    checkpoint: Path
    evaluation: Evaluation | None
    stopped_by: signal.Signals | None


class Trainer:
    """Trains a model as a `RunConfig` says, alone or with other ranks.

    A resumed run gives the bits of an unbroken one; on a GPU with `train.deterministic`, and on as
    many ranks. Every rank makes a trainer and calls its methods; batches, losses, checkpoints and
    records are those of all ranks together, and rank 0 writes them.

    Parameters
    ----------
    config : RunConfig
        All settings.
    resume : Checkpoint, optional
        What to go on from, as `read_checkpoint` gives it.
    comm : Communicator, optional
        Of as many ranks as the settings want. It stays the caller's to close; an error on one rank
        ends the work of all of them.

    Attributes
    ----------
    config : RunConfig
    world : World
        The ranks.
    out_dir : Path
        Where checkpoints, ``metrics.jsonl`` and ``loss.png`` go.
    data : RunData or TaskData
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
        Settings, data or checkpoint do not fit each other, the folder holds checkpoints that are
        not resumed, or the ranks differ in any of these.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        resume: checkpoint.Checkpoint | None = None,
        comm: Communicator | None = None,
    ) -> None:
        self.config = config
        self.out_dir = Path(config.train.out_dir)
        self.clock = Clock()
        self.world = World(config, comm)
        with self.world.told():
            self._prepare(resume)

    def _prepare(self, resume: checkpoint.Checkpoint | None) -> None:
        config, settings, world = self.config, self.config.train, self.world
        check_folder(config, resume)
        self._schedule = learning_rates(settings)
        if settings.threads is not None:
            set_num_threads(settings.threads)
            blas.set_num_threads(settings.threads)
        self.data = open_data(config)
        self.batches = Feed(self.make_batches(), world.device, world.part)
        if resume is not None:
            check_resumable(config, self.data.tokenizer.fingerprint, resume)
        world.agree({**self.data.fingerprint, **identity(resume)})
        self.model = make_model(config, world)
        self.optimizer = make_optimizer(self.model, settings, world)
        self.random = world.random_state(settings.seed)
        self.step = self.tokens = 0
        self.seconds = 0.0
        self._saved: Path | None = None  # the checkpoint that holds the present state
        self._stopped_by: signal.Signals | None = None
        if resume is not None:
            restore(self, resume)
            if resume.path.parent.resolve() == self.out_dir.resolve():
                self._saved = resume.path

    def make_batches(self) -> Batches | TaskBatches:
        """What to train on, from `data`; a subclass may order it in another way."""
        settings = self.config.train
        return self.data.batches(settings.batch_size, settings.sequence_length, settings.seed)

    def train(self) -> Outcome:
        """Train until all steps are made, or until SIGTERM or Ctrl-C on any rank, and save.

        A signal lets the step end. A second Ctrl-C raises KeyboardInterrupt at once.

        Raises
        ------
        DivergenceError
            The loss or the gradients are not finite. Checkpoints are left as they are.
        OutOfMemoryError
            A step does not fit; on a GPU the message says what would. Checkpoints are left.
        CommunicatorError
            Another rank has failed, or did not come in time. Checkpoints are left.
        LongNetError
            A file cannot be written. Earlier checkpoints are left as they are.
        """
        steps = self.config.train.steps
        with (
            self.world.told(),
            Record(self.out_dir, self.step, steps) if self.world.is_main else Silence() as record,
            StopSignals() as stop,
            np.errstate(over="ignore", invalid="ignore"),  # losses are checked
            ExitStack() as watch,
        ):
            if self.config.train.detect_anomaly:
                watch.enter_context(detect_anomaly())
            evaluation = explain_shortage(self, lambda: self._loop(record, stop))
            saved = self._saved or self._save(record)
        return Outcome(saved, evaluation, self._stopped_by)

    def evaluate(self) -> Evaluation:
        """Score the windows of the validation data."""
        with self.world.told(), self.clock("evaluation"):
            return self.data.evaluate(self.model, self.config.train, self.world.mesh)

    def _loop(self, out: Silence, stop: StopSignals) -> Evaluation | None:
        """Make the steps that are left; return the evaluation of the very last one."""
        settings = self.config.train
        before, start = self.seconds, perf_counter()
        speed = Speedometer(self.model, settings, self.world, self.tokens)
        backlog = Backlog(self.world)
        evaluation = None

        def check(step: int, name: str, value: float) -> None:
            with self.world.alike():
                check_finite(self.out_dir, step, name, value)

        def settle(count: int) -> list[dict[str, Any]]:
            """Take in the first updates of the backlog: check them, show them."""
            with speed:
                records = list(backlog.take(count))
            for record in records:
                check(record["step"], "loss", record["loss"])
                check(record["step"], "gradient norm", record["grad_norm"])
                record |= speed.reading(record["tokens"])
                out.show(record)
            return records

        def write(records: list[dict[str, Any]]) -> None:
            self.seconds = before + perf_counter() - start
            for record in records:
                if "validation_loss" in record or record["step"] % settings.log_every == 0:
                    out.write(self._complete(record))
                    speed.restart(record["tokens"])

        while self.step < settings.steps and self._stopped_by is None:
            with speed:
                self._update(backlog)
                # All ranks go on with the same: they find the same errors at the same step.
                ready, signals = zip(
                    *self.world.gather((backlog.ready, stop.received)), strict=True
                )
            self._stopped_by = next((number for number in signals if number is not None), None)
            evaluates = self.step == settings.steps or self.step % settings.eval_every == 0
            saves = self.step % settings.save_every == 0
            # A GPU is waited for only where its numbers are needed at once.
            records = settle(len(backlog) if evaluates or saves else min(ready))
            if evaluates:
                evaluation = self.evaluate()
                check(self.step, "validation loss", evaluation.loss)
                records[-1] |= validation_record(evaluation)
                out.show_evaluation(self.step, evaluation)
            write(records)
            if saves:
                self._save(out)
        write(settle(len(backlog)))  # of a run that was stopped
        return evaluation if self.step == settings.steps else None

    def _update(self, backlog: Backlog) -> None:
        """Queue one update of the weights; its record goes to the backlog."""
        settings = self.config.train
        self._saved = None
        self.optimizer.zero_grad()
        losses = []
        for left in reversed(range(settings.accumulate)):
            with self.clock("data"):
                batch = next(self.batches)
            with self.clock("forward"), random.use(self.random):
                loss = self.model.loss(
                    batch.inputs,
                    batch.targets,
                    count=batch.count,
                    chunk=settings.loss_chunk,
                    recompute=settings.recompute,
                    deterministic=settings.deterministic,
                    comm=self.world.sequence,
                )
            losses.append(loss.data)
            self.tokens += batch.tokens
            with self.clock("backward"), ExitStack() as last:
                if not left:
                    last.enter_context(self.optimizer.gradients_final())
                loss.backward(_LOSS_SCALE[settings.dtype])
        with self.clock("update"):
            learning_rate = self._schedule(self.step)
            factor, norm = self.optimizer.clip_factor(
                settings.clip, divisor=settings.accumulate * _LOSS_SCALE[settings.dtype]
            )
            self.optimizer.step(learning_rate, factor)
        self.step += 1
        record = {"step": self.step, "tokens": self.tokens, "learning_rate": learning_rate}
        backlog.add(record, losses, norm)

    def _complete(self, record: dict[str, Any]) -> dict[str, Any]:
        """What the metrics file keeps of an update."""
        if self.data.is_bytes:
            record["bits_per_byte"] = record["loss"] / math.log(2)
        return record | {"seconds": round(self.seconds, 3)}

    def _save(self, record: Silence) -> Path:
        """Write a checkpoint, then draw the loss curve; return where the checkpoint lies."""
        with self.clock("checkpoint"):
            self._saved = save(self, record)
        with self.clock("loss curve"):
            record.draw()
        return self._saved
