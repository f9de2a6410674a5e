"""A run that takes a second: a model of two layers on a text of 20,000 bytes."""

from pathlib import Path
from typing import Any

import numpy as np

from longnet.config import RunConfig

MODEL = {
    "num_layers": 2,
    "embed_dim": 32,
    "num_heads": 2,
    "segment_lengths": [8, 16],
    "dilation_rates": [1, 2],
    "dropout": 0.1,
    "attention_dropout": 0.1,
}
TRAIN = {
    "steps": 6,
    "batch_size": 2,
    "sequence_length": 24,
    "learning_rate": 1e-2,
    "warmup_steps": 1,
    "eval_every": 3,
    "eval_sequences": 4,
    "log_every": 1,
    "save_every": 2,
    "loss_chunk": 32,
}


def write_text(folder: Path, size: int = 20_000) -> Path:
    """A file of words, of which a model can learn something."""
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, rng.integers(2, 7)).astype(np.uint8)) for _ in range(50)]
    text = b" ".join(words[i] for i in rng.integers(0, len(words), size // 3))
    path = folder / "text.txt"
    path.write_bytes(text[:size])
    return path


def tiny_config(folder: Path, out: str = "run", **train: Any) -> RunConfig:
    """Settings of a run in `folder` that writes to its subfolder `out`; `train` replaces some."""
    text = folder / "text.txt"
    return RunConfig.from_dict(
        {
            "model": MODEL,
            "data": {"train": str(text if text.exists() else write_text(folder))},
            "train": {**TRAIN, "out_dir": str(folder / out), **train},
        }
    )


def same_arrays(found: Any, expected: Any) -> bool:
    """Whether two checkpoints hold the same bits."""
    return found.arrays.keys() == expected.arrays.keys() and all(
        found.arrays[group].keys() == named.keys()
        and all(found.arrays[group][name].tobytes() == named[name].tobytes() for name in named)
        for group, named in expected.arrays.items()
    )
