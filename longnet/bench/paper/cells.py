"""What is trained: one model of the comparison at one length, and how large everything is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longnet import mixers
from longnet.config import Config, DataConfig, RunConfig, TrainConfig
from longnet.errors import ConfigError

MIXERS = {"dense": "dense", "sparse": "sparse", "longnet": "dilated"}

# The paper's levels; its Sparse Transformer has blocks as long as the first segment.
_SEGMENTS = 2, 4, 8, 16, 32  # in units of `Scale.unit`
_RATES = 1, 2, 4, 6, 12


@dataclass(frozen=True)
class Scale:
    """Sizes that all runs of a comparison share.

    Attributes
    ----------
    unit : int
        Tokens that "1K" stands for.
    steps, step_tokens : int
        Updates, and tokens of each.
    num_layers, embed_dim, num_heads : int
    learning_rate : float
    seed : int
    windows : int
        Windows of 32K of validation text, at most.
    scored : int
        Tokens at the end of a window that are scored after prompts of each length.
    same_batches : bool
        Whether an update has the same text in all runs, windows of 32K cut into sequences; else
        each run shuffles sequences of its own length, and short ones come from more places.
    """

    unit: int = 1024
    steps: int = 1200
    step_tokens: int = 65536
    num_layers: int = 6
    embed_dim: int = 768
    num_heads: int = 12
    learning_rate: float = 1e-3
    seed: int = 0
    windows: int = 90
    scored: int = 512
    same_batches: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"--steps: found {self.steps}, expected at least 1")
        if self.step_tokens % self.longest:
            raise ConfigError(
                f"tokens of a step: found {self.step_tokens}, "
                f"expected a multiple of the longest sequence, {self.longest}"
            )

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, "32K"."""
        return 32 * self.unit

    @property
    def tokens(self) -> int:
        """Tokens that a run is trained on."""
        return self.steps * self.step_tokens


# A model of seconds on a CPU, every length a 32nd: to see a benchmark run, not for its figures.
SMALL = Scale(
    unit=32, steps=60, step_tokens=2048, num_layers=2, embed_dim=64, num_heads=4,
    learning_rate=3e-3, windows=12, scored=16,
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A run of the comparison.

    Attributes
    ----------
    model : str
        One of `MIXERS`.
    thousands : int
        Length that it is trained at, in units: 32 for "32K".
    """

    model: str
    thousands: int

    @property
    def name(self) -> str:
        """Such as ``longnet-32k``."""
        return f"{self.model}-{self.thousands}k"

    def length(self, scale: Scale) -> int:
        """Tokens of a sequence of the training."""
        return self.thousands * scale.unit

    def window(self, scale: Scale) -> int:
        """Tokens that lie together in the text and in an update of the training."""
        return scale.longest if scale.same_batches else self.length(scale)


def select(cells: Sequence[Cell], names: str | None) -> Sequence[Cell]:
    """Those that a comma-separated list names, in its order; all without one.

    Raises
    ------
    ConfigError
        A name is not among them.
    """
    if names is None:
        return cells
    known = {cell.name: cell for cell in cells}
    for name in names.split(","):
        if name not in known:
            raise ConfigError(f"--only: found {name!r}, expected some of {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def model_config(cell: Cell, scale: Scale) -> Config:
    """The model: over bytes, with xPos; Sparse has as many operations on queries and keys at its
    length as LongNet, or as near to them as a whole number of summary columns comes."""
    config = Config(
        num_layers=scale.num_layers,
        embed_dim=scale.embed_dim,
        num_heads=scale.num_heads,
        segment_lengths=tuple(w * scale.unit for w in _SEGMENTS),
        dilation_rates=_RATES,
        position="xpos",
        mixer=MIXERS[cell.model],
    )
    return _matched(config, cell.length(scale)) if cell.model == "sparse" else config


def attention_flops(config: Config, length: int) -> int:
    """Operations on queries, keys and values that training on one sequence takes, in all layers."""
    found: list[Any] = [
        mixers.make(config.mixer, config, layer) for layer in range(config.num_layers)
    ]
    return sum(mixer.flops(length) for mixer in found)


def _matched(config: Config, length: int) -> Config:
    """A sparse model with the operations of the dilated one: they grow evenly by the column."""
    target = attention_flops(replace(config, mixer="dilated"), length)
    one, two = (attention_flops(replace(config, summary_columns=c), length) for c in (1, 2))
    most = config.levels(0)[0][0]
    columns = 1 + round((target - one) / (two - one)) if two > one else 1
    return replace(config, summary_columns=min(max(columns, 1), most))


def run_config(
    cell: Cell, scale: Scale, *, train: Path, validation: Path, out_dir: Path, device: str
) -> RunConfig:
    """All settings of a run. Checkpoints are written when it ends or is stopped."""
    length = cell.length(scale)
    settings: dict[str, Any] = {
        "dtype": "float32" if device == "cpu" else "bfloat16",
        "device": device,
        "seed": scale.seed,
    }
    return RunConfig(
        model=model_config(cell, scale),
        data=DataConfig(train=str(train), validation=str(validation), format="text"),
        train=TrainConfig(
            out_dir=str(out_dir),
            steps=scale.steps,
            batch_size=scale.step_tokens // length,
            sequence_length=length,
            learning_rate=scale.learning_rate,
            warmup_steps=scale.steps // 12,
            clip=1.0,
            eval_every=scale.steps,
            eval_sequences=1,
            save_every=scale.steps,
            keep=1,
            **settings,
        ),
    )
