"""Training runs on meshes of ranks, for the tests of them."""

from pathlib import Path
from typing import Any

from ranks import returned, run_threads
from tiny_run import tiny_config

from longnet.config import RunConfig
from longnet.train import Outcome, Trainer, read_checkpoint, read_metrics

# Of shards of 6 rows or more, the first level lies in most and the second crosses all.
MODEL = {"segment_lengths": [4, 16], "dilation_rates": [1, 2]}
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}


def mesh_config(
    folder: Path, out: str, sequence: int, data: int, *, dropout: bool = False, **train: Any
) -> RunConfig:
    """A tiny run of `sequence` times `data` ranks."""
    options = {"sequence_parallel": sequence, "data_parallel": data, "batch_size": 4, "threads": 1}
    config = tiny_config(folder, out, **{**options, **train})
    return config.merge({"model": MODEL if dropout else MODEL | NO_DROPOUT})


def train_on(config: RunConfig, *, resume: bool = False) -> list[Outcome]:
    """Train on threads, as many as the mesh has; what each rank returned."""
    ranks = config.train.sequence_parallel * config.train.data_parallel

    def run(comm):
        checkpoint = read_checkpoint(config.train.out_dir) if resume else None
        return Trainer(config, resume=checkpoint, comm=comm).train()

    return returned(run_threads(ranks, run))


def curve(folder: Path, key: str = "loss") -> list[Any]:
    """What the metrics in a run's folder have of `key`."""
    return [record[key] for record in read_metrics(folder / "metrics.jsonl") if key in record]
