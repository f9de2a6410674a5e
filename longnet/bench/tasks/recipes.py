"""What is trained: a model, a task and the way it is learned, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longnet import tasks
from longnet.bench.tasks.turned import TurnedPathfinder
from longnet.config import Config, DataConfig, RunConfig, TrainConfig
from longnet.errors import ConfigError
from longnet.tasks import TaskBatches
from longnet.train.task_data import MixedBatches

_SEED = 0
_THREADS = {"cpu": 1, "cuda": 4}  # of a process: the products are small, or a GPU's
_STEADY = 0.8  # of a training at the full learning rate, before it decays


@dataclass(frozen=True)
class Phase:
    """A part of a training; the learning rate decays in the last one.

    Attributes
    ----------
    share : float
        Of the training's steps and minutes.
    dashes : tuple of int
        With `turned` images: contours of so many dashes take turns, and their pixels are asked for
        (`TurnedPathfinder`); 0 is the task itself.
    """

    share: float
    dashes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Recipe:
    """One training.

    Attributes
    ----------
    name, task : str
    length : int
        Tokens of an example.
    steps : int
        Updates, at most.
    minutes : float
        Of training, at most.
    batch_size : int
        Rows of a batch.
    num_layers, embed_dim, num_heads, ffn_dim : int
    segment_lengths, dilation_rates : tuple of int
    position_base : float
        Of RoPE.
    learning_rate, warmup_steps
    phases : tuple of Phase
    shortest : int or None
        Batches take turns in length: `length`, half of it and so on, down to no less than this.
    turned : int
        How often each image is used, turned or mirrored in another way each time; 0: these are not
        taught so.
    lengths : tuple of int
        That the model is scored at.
    examples : int
        Of each length.
    eval_every, eval_examples : int
        Steps from one look at held-out examples of `length` to the next, and their number.
    solved : float
        Accuracy of a look from which nothing more is to be learned; above 1: never.
    """

    name: str
    task: str
    length: int
    steps: int
    minutes: float
    batch_size: int
    num_layers: int
    embed_dim: int
    num_heads: int
    ffn_dim: int
    segment_lengths: tuple[int, ...]
    dilation_rates: tuple[int, ...]
    position_base: float
    learning_rate: float
    warmup_steps: int
    lengths: tuple[int, ...]
    examples: int
    phases: tuple[Phase, ...] = (Phase(_STEADY), Phase(1 - _STEADY))
    shortest: int | None = None
    turned: int = 0
    eval_every: int = 100
    eval_examples: int = 100
    solved: float = 2.0


# The paper's levels.
_LEVELS: dict[str, Any] = {
    "segment_lengths": (2048, 4096, 8192, 16384, 32768),
    "dilation_rates": (1, 2, 4, 6, 12),
}
_INDUCTION = Recipe(
    name="induction-2k", task="induction_heads", length=2048, shortest=16,
    steps=8000, minutes=2.5, batch_size=64, num_layers=2, embed_dim=128, num_heads=4, ffn_dim=256,
    **_LEVELS, position_base=1e6, learning_rate=2.5e-3, warmup_steps=100,
    lengths=(256, 512, 1024, 2048, 4096, 8192, 16384, 32768), examples=100, solved=0.999,
)  # fmt: skip
_RECALL = replace(
    _INDUCTION, name="recall-2k", task="associative_recall", shortest=8, batch_size=128,
)  # fmt: skip
_AT_256: dict[str, Any] = {
    "length": 256, "minutes": 3.0, "embed_dim": 64, "num_heads": 2, "ffn_dim": 128,
    "segment_lengths": (4096,), "dilation_rates": (1,), "learning_rate": 5e-3, "warmup_steps": 50,
    "lengths": (256, 512, 1024, 2048, 4096), "examples": 50, "eval_every": 50,
}  # fmt: skip
# One level in which every query sees its evidence, at each of the lengths.
_ONE_LEVEL: dict[str, Any] = {"segment_lengths": (32768,), "dilation_rates": (1,)}
_PATHFINDER = Recipe(
    name="pathfinder32", task="pathfinder32", length=1024, steps=20000, minutes=6.5,
    batch_size=128, turned=4, num_layers=8, embed_dim=256, num_heads=4, ffn_dim=1024, **_LEVELS,
    position_base=1e4, learning_rate=1e-3, warmup_steps=300,
    phases=(Phase(0.75, (14, 9, 6, 4, 0)), Phase(0.25, (14, 0))),
    lengths=(1024,), examples=2000, eval_every=250, eval_examples=256,
)  # fmt: skip
_PATH_X = replace(
    _PATHFINDER, name="pathx128", task="pathx128", length=16384, lengths=(16384,), steps=60,
    minutes=2, batch_size=16, turned=0, warmup_steps=10, phases=(Phase(_STEADY), Phase(0.2)),
    examples=20, eval_every=60, eval_examples=20,
)  # fmt: skip

RECIPES = {
    recipe.name: recipe
    for recipe in (
        _INDUCTION,
        replace(_INDUCTION, name="induction-1layer-2k", num_layers=1, minutes=1.5),
        replace(_INDUCTION, name="induction-1level-2k", **_ONE_LEVEL),
        _RECALL,
        replace(_RECALL, name="recall-1level-2k", **_ONE_LEVEL),
        Recipe(
            name="listops", task="listops", length=2000, shortest=62, steps=20000, minutes=6.5,
            batch_size=128, num_layers=8, embed_dim=256, num_heads=4, ffn_dim=1024, **_LEVELS,
            position_base=1e4, learning_rate=1e-3, warmup_steps=300,
            lengths=(250, 500, 1000, 2000, 4000), examples=1000, eval_every=500,
            eval_examples=256,
        ),
        _PATHFINDER,
        _PATH_X,
        replace(_PATH_X, name="pathx256", task="pathx256", length=65536, lengths=(65536,),
                batch_size=4),
        replace(_INDUCTION, name="induction-256", batch_size=32, steps=1500, **_AT_256),
        replace(_INDUCTION, name="induction-1layer-256", num_layers=1, batch_size=32, steps=1500,
                **_AT_256),
        replace(_RECALL, name="recall-256", batch_size=64, steps=1200, **_AT_256),
    )
}  # fmt: skip


def select(names: str | None, device: str) -> list[Recipe]:
    """Those that a comma-separated list names, in its order; without one, all for the device.

    Raises
    ------
    ConfigError
        A name is unknown.
    """
    if names is None:
        small = device == "cpu"
        return [recipe for recipe in RECIPES.values() if recipe.name.endswith("-256") == small]
    for name in names.split(","):
        if name not in RECIPES:
            raise ConfigError(f"--only: found {name!r}, expected some of {', '.join(RECIPES)}")
    return [RECIPES[name] for name in names.split(",")]


def run_config(recipe: Recipe, folder: Path, device: str) -> RunConfig:
    """All settings of a training, with a constant learning rate."""
    task = tasks.get(recipe.task)
    return RunConfig(
        model=Config(
            vocab_size=task.vocab_size,
            num_layers=recipe.num_layers,
            embed_dim=recipe.embed_dim,
            num_heads=recipe.num_heads,
            ffn_dim=recipe.ffn_dim,
            segment_lengths=recipe.segment_lengths,
            dilation_rates=recipe.dilation_rates,
            norm_placement="pre",
            position="rope",
            position_base=recipe.position_base,
        ),
        data=DataConfig(task=recipe.task, task_shortest=recipe.shortest),
        train=TrainConfig(
            out_dir=str(folder),
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            sequence_length=recipe.length,
            learning_rate=recipe.learning_rate,
            schedule="constant",
            warmup_steps=min(recipe.warmup_steps, recipe.steps),
            clip=1.0,
            seed=_SEED,
            dtype="float32" if device == "cpu" else "bfloat16",
            device=device,
            eval_every=recipe.eval_every,
            eval_sequences=recipe.eval_examples,
            save_every=recipe.steps,
            keep=1,
            threads=_THREADS[device],
        ),
    )


def turns(recipe: Recipe, phase: Phase) -> list[TaskBatches]:
    """Where the batches of a phase come from, in turn; each makes those of one block."""
    rows, length = recipe.batch_size, recipe.length
    if recipe.turned:
        taught = [TurnedPathfinder(recipe.task, n or None, recipe.turned) for n in phase.dashes]
        return [TaskBatches(task, rows, length, _SEED) for task in taught]
    task = tasks.get(recipe.task)
    if recipe.shortest is None:
        return [TaskBatches(task, rows, length, _SEED)]
    return [MixedBatches(task, rows, length, _SEED, recipe.shortest)]
