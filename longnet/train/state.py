"""A run's checkpoints: where they lie, what they hold, which of them a run may go on from."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longnet import checkpoint
from longnet.checkpoint import Checkpoint, latest, layout, load, load_latest
from longnet.config import RunConfig
from longnet.errors import CheckpointError, ConfigError, DataError, DivergenceError

if TYPE_CHECKING:
    from longnet.train.record import Silence
    from longnet.train.trainer import Trainer

# What a training run keeps beside its arrays, and of what type.
KEYS: dict[str, type | tuple[type, ...]] = {
    "config": dict,
    "tokenizer": str,
    "data": dict,
    "random": dict,
    "optimizer": dict,
    "tokens": int,
    "seconds": (int, float),
}


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint that a `Trainer` saved, and check it.

    Parameters
    ----------
    path : path
        The checkpoint's own folder, or the folder of a run, of which the latest is meant.

    Raises
    ------
    CheckpointError
        There is none, it is damaged, or something else than a `Trainer` saved it.
    """
    path = Path(path)
    is_one = path.name.startswith("step-") or (path / "manifest.json").exists()
    checkpoint = load(path) if is_one else load_latest(path)
    for group in ("model", "optimizer"):
        if group not in checkpoint.arrays:
            raise CheckpointError(
                f"{checkpoint.path}: found no arrays of the {group}, expected a training run's"
            )
    for key, kind in KEYS.items():
        if key not in checkpoint.state:
            raise CheckpointError(
                f"{checkpoint.path}: found no {key!r} in its state, expected a training run's"
            )
        found = checkpoint.state[key]
        if not isinstance(found, kind):
            raise CheckpointError(
                f"{checkpoint.path}: found {key} {found!r} in its state, expected a training run's"
            )
    return checkpoint


def saved_config(checkpoint: Checkpoint) -> RunConfig:
    """The settings of the run that saved a checkpoint, to be continued in the folder it lies in.

    Raises
    ------
    ConfigError
        This version does not know them.
    """
    config = RunConfig.from_dict(checkpoint.state["config"])
    return config.merge({"train": {"out_dir": str(checkpoint.path.parent)}})


def check_folder(config: RunConfig, resume: Checkpoint | None) -> None:
    """Refuse to train where checkpoints lie that the run did not start from.

    Raises
    ------
    ConfigError
        The message says what to do.
    """
    folder = Path(config.train.out_dir)
    newest = latest(folder)
    if newest is None:
        return
    if resume is None:
        raise ConfigError(
            f"train.out_dir: found the checkpoint {newest}, expected none: resume it "
            f"(longnet train --resume {folder}) or choose another folder"
        )
    if newest.resolve() != resume.path.resolve():
        raise ConfigError(
            f"train.out_dir: found the checkpoint {newest}, expected none after {resume.path}: "
            "move it away or choose another folder"
        )


def check_resumable(config: RunConfig, tokenizer: str, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that cannot be continued with these settings and this tokenizer.

    Raises
    ------
    ConfigError
        The model or the tokenizer differs, or the run would end before the checkpoint.
    """
    saved: Mapping[str, Any] = checkpoint.state["config"]["model"]
    for key, value in config.model.to_dict().items():
        if saved.get(key) != value:
            raise ConfigError(
                f"model.{key}: found {value!r}, expected {saved.get(key)!r} as {checkpoint.path}"
            )
    if checkpoint.state["tokenizer"] != tokenizer:
        raise ConfigError(
            f"data.tokenizer: found {tokenizer}, expected {checkpoint.state['tokenizer']} "
            f"as {checkpoint.path}"
        )
    if checkpoint.step > config.train.steps:
        raise ConfigError(
            f"train.steps: found {config.train.steps}, expected at least {checkpoint.step}, "
            f"the steps of {checkpoint.path}"
        )


def identity(saved: Checkpoint | None) -> dict[str, object]:
    """What ranks that go on from the same checkpoint, or from none, have in common."""
    step = 0 if saved is None else saved.step
    return {"step": step, "checkpoint": saved and layout.sha256(saved.path / layout.MANIFEST)}


def check_finite(folder: Path, step: int, name: str, value: float) -> None:
    """Refuse a number of a run that checkpoints in `folder`.

    Raises
    ------
    DivergenceError
        It is not finite.
    """
    if not math.isfinite(value):
        newest = latest(folder)
        raise DivergenceError(
            f"step {step}: found {name} {value}, expected a finite number; "
            f"{'no checkpoint yet' if newest is None else f'the last checkpoint is {newest}'}"
        )


def save(trainer: Trainer, record: Silence) -> Path:
    """Write a checkpoint on rank 0, after `record`; every rank returns where it lies.

    Raises
    ------
    CommunicatorError
        A rank has failed in this step, or rank 0 in writing. Checkpoints are left as they are.
    DivergenceError
        A weight is not finite.
    LongNetError
        A file cannot be written.
    """
    arrays, state = snapshot(trainer)
    trainer.world.finish()  # a collective that fails on a GPU is noticed late
    saved = None
    if trainer.world.is_main:
        for name, array in arrays["model"].items():
            check_finite(trainer.out_dir, trainer.step, name, float(np.abs(array).max()))
        record.sync()  # no checkpoint without the records that led to it
        keep = trainer.config.train.keep
        saved = checkpoint.save(trainer.out_dir, trainer.step, arrays, state, keep)
    return trainer.world.gather(saved)[0]


def snapshot(trainer: Trainer) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """What a checkpoint of a run holds: arrays by group and name, on rank 0, and the rest, `KEYS`.

    Every rank calls it.
    """
    optimizer = trainer.optimizer.state_dict()
    moments = {key: value for key, value in optimizer.items() if isinstance(value, np.ndarray)}
    weights = trainer.model.state_dict() if trainer.world.is_main else {}
    return {"model": weights, "optimizer": moments}, {
        "config": trainer.config.to_dict(),
        "tokenizer": trainer.data.tokenizer.fingerprint,
        "data": trainer.batches.state_dict(),
        "random": trainer.random.state_dict(),
        "optimizer": {key: value for key, value in optimizer.items() if key not in moments},
        "tokens": trainer.tokens,
        "seconds": trainer.seconds,
    }


def restore(trainer: Trainer, saved: Checkpoint) -> None:
    """Let a trainer go on from a checkpoint.

    Raises
    ------
    CheckpointError, DataError
        The checkpoint holds something else; the message begins with its path.
    """
    state = saved.state
    try:
        trainer.model.load_state_dict(saved.arrays["model"])
        trainer.optimizer.load_state_dict(saved.arrays["optimizer"] | state["optimizer"])
        trainer.random.load_state_dict(state["random"])
        trainer.batches.load_state_dict(state["data"])
    except (CheckpointError, DataError) as error:
        raise type(error)(f"{saved.path}: {error}") from error
    trainer.step, trainer.tokens = saved.step, state["tokens"]
    trainer.seconds = state["seconds"]
