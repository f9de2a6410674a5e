"""One training by a recipe, and what the model scores then."""

from __future__ import annotations

import gc
import signal
import sys
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, cast

import longnet
from longnet import tasks
from longnet.bench import report
from longnet.bench.devices import CpuDevice, gpu_hardware
from longnet.bench.tasks.recipes import Recipe, run_config, turns
from longnet.bench.tasks.stream import BlockMaker, Stream
from longnet.checkpoint import Checkpoint
from longnet.config import RunConfig
from longnet.evaluate.perplexity import Evaluation
from longnet.evaluate.tasks import evaluate_task
from longnet.tasks import TaskBatches
from longnet.train import METRICS, Trainer, read_checkpoint, read_metrics
from longnet.train.feed import Feed

Record = dict[str, Any]


class Run(Trainer):
    """A training that ends early once held-out examples are answered.

    Parameters
    ----------
    config : RunConfig
    solved : float
        Accuracy from which the training ends, by a SIGTERM for this process.
    resume : Checkpoint, optional

    Attributes
    ----------
    is_solved : bool
    """

    def __init__(self, config: RunConfig, solved: float, resume: Checkpoint | None) -> None:
        super().__init__(config, resume=resume)
        self.is_solved, self._solved = False, solved

    def evaluate(self) -> Evaluation:
        """Score the held-out examples."""
        evaluation = super().evaluate()
        if evaluation.accuracy is not None and evaluation.accuracy >= self._solved:
            self.is_solved = True
            signal.raise_signal(signal.SIGTERM)
        return evaluation


@dataclass
class Trained:
    """What came of a training.

    Attributes
    ----------
    trainer : Trainer
    ended : str
        What ended it: "steps", "minutes" or "solved".
    """

    trainer: Trainer
    ended: str


class Interrupted(Exception):
    """The user or the system asked for the end; `number` is the signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def make(recipe: Recipe, folder: Path, device: str, workers: int) -> Record:
    """Train and score a model, in a new folder.

    Raises
    ------
    Interrupted
        A signal came.
    """
    print(f"{recipe.name}: {folder}", file=sys.stderr, flush=True)
    longnet.reset_peak_memory(device)
    trained = train(recipe, folder, device, workers)
    trainer = trained.trainer
    metrics = read_metrics(folder / METRICS)
    curve = [
        {"step": m["step"], "seconds": m["seconds"], "accuracy": m["validation_accuracy"]}
        for m in metrics
        if "validation_accuracy" in m
    ]
    record = {
        **report.header(device, gpu_hardware() if device == "cuda" else CpuDevice().hardware()),
        "parameters": trainer.model.num_parameters(),
        "steps": trainer.step,
        "tokens": trainer.tokens,
        "seconds": round(trainer.seconds, 1),
        "ended": trained.ended,
        "tokens_per_second": median(m["tokens_per_second"] for m in metrics),
        "peak_gb": longnet.memory_stats(device)["peak_bytes"] / 1e9,
        "loss": metrics[-1]["loss"],
        "curve": curve,
        "cells": scores(recipe, trainer, device),
    }
    del trained, trainer
    gc.collect()
    if device == "cuda":
        longnet.synchronize(device)
        longnet.empty_cache(device)
    return record


def train(recipe: Recipe, folder: Path, device: str, workers: int) -> Trained:
    """Train through all phases; what is solved goes to the last one, shortened, at once."""
    config, start = run_config(recipe, folder, device), monotonic()
    last = len(recipe.phases) - 1
    ends = list(accumulate(phase.share for phase in recipe.phases))
    trainer, ended = None, "steps"
    for i, phase in enumerate(recipe.phases):
        if ended == "solved" and i < last:
            continue
        done = 0 if trainer is None else trainer.step
        steps = max(done + 1, round(ends[i] * recipe.steps))
        if i == last and trainer is not None and ended != "steps":
            # As long in relation to what was done as if nothing had been cut short.
            steps = done + max(1, round(done * phase.share / (1 - phase.share)))
        settings: dict[str, Any] = {
            "steps": steps,
            "warmup_steps": min(config.train.warmup_steps, steps),
        }
        if i == last:
            settings |= {"schedule": "wsd", "decay_fraction": (steps - done) / steps}
        resume = None if trainer is None else read_checkpoint(folder)
        solved = recipe.solved if i < last else float("inf")
        trainer = Run(config.merge({"train": settings}), solved, resume)
        until = start + 60 * recipe.minutes * ends[i]
        ended = _train_phase(recipe, i, trainer, until, workers, ended)
    assert trainer is not None
    return Trained(trainer, ended)


def _train_phase(
    recipe: Recipe, number: int, trainer: Run, until: float, workers: int, ended: str
) -> str:
    """Train through one phase; what ended it, or an earlier one."""
    phase = recipe.phases[number]
    stream = Stream(
        BlockMaker(turns(recipe, phase), recipe.batch_size),
        trainer.batches.state_dict(),
        trainer.step,
        workers=workers,
        until=until,
    )
    trainer.batches = Feed(cast(TaskBatches, stream), trainer.world.device)
    outcome = trainer.train()
    if stream.expired:
        return "minutes" if ended != "solved" else ended
    if trainer.is_solved:
        return "solved"
    if outcome.stopped_by is not None:
        raise Interrupted(outcome.stopped_by)
    return ended


def scores(recipe: Recipe, trainer: Trainer, device: str) -> list[Record]:
    """What the model scores on held-out examples of each length, chance and shortcut beside it."""
    cells = []
    for cell in evaluate_task(
        trainer.model,
        tasks.get(recipe.task),
        recipe.lengths,
        examples=recipe.examples,
        device=device,
    ):
        print(
            f"{recipe.name}: {cell.score:.3f} +- {cell.standard_error:.3f} at {cell.length:,}, "
            f"chance {cell.chance:.3f}, shortcut {cell.shortcut:.3f}",
            file=sys.stderr,
            flush=True,
        )
        cells.append(asdict(cell))
    return cells
