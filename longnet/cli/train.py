"""Train a model; without options a small one, on the source code of Python's standard library."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from longnet.cli.ranks import is_first, joined

if TYPE_CHECKING:
    from longnet.communicator import Communicator
    from longnet.config import RunConfig
    from longnet.train import Outcome, Trainer

HELP = "train a model; without options, a small one on Python's standard library"

# The end of an out_dir that stands for a number: of a new folder, or of the last one on --resume.
_NUMBERED = "-NNN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of the command."""
    parser.add_argument("--config", metavar="FILE", help="settings, a .toml or .json file")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="where settings come from that nothing else gives: demo (the default without "
        "--config), 125m, 350m, 760m, 2.7b",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one setting, such as train.steps=100; may be given many times",
    )
    parser.add_argument(
        "--out-dir",
        metavar="FOLDER",
        help=f"short for --set train.out_dir=FOLDER; {_NUMBERED} at its end becomes a new number, "
        f"with --resume the last one (default: runs/PRESET{_NUMBERED})",
    )
    parser.add_argument(
        "--device", metavar="DEVICE", help="short for --set train.device=DEVICE, such as cuda"
    )
    parser.add_argument(
        "--dtype", metavar="DTYPE", help="short for --set train.dtype=DTYPE, such as bfloat16"
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="short for --set data.task=NAME: train on a task such as induction_heads or listops",
    )
    parser.add_argument(
        "--sequence-parallel",
        metavar="S",
        type=int,
        help="short for --set train.sequence_parallel=S: ranks that share each sequence",
    )
    parser.add_argument(
        "--data-parallel",
        metavar="D",
        type=int,
        help="short for --set train.data_parallel=D: groups of such ranks, which share a batch; "
        "mpirun, torchrun or srun starts S times D ranks",
    )
    parser.add_argument(
        "--detect-anomaly",
        action="store_const",
        const=True,
        help="name the first op whose result is not finite; slow",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing; print parameters, memory and operations of the run",
    )
    parser.add_argument(
        "--resume",
        metavar="PATH",
        nargs="?",
        const="",
        help="go on from a run's folder or from one checkpoint, with its settings unless others "
        "are given (default: the latest in the folder that --out-dir names)",
    )


def run(options: argparse.Namespace) -> int:
    """Train, and say what came out; return the exit code."""
    from longnet.train import Trainer, read_checkpoint, saved_config

    checkpoint = None
    if options.resume is None:
        config = _settings(options, _base(options))
    else:
        folder = options.resume or _last(_settings(options, _base(options)).train.out_dir)
        checkpoint = read_checkpoint(folder)
        config = _settings(options, saved_config(checkpoint))
        if not options.resume:
            config = config.merge({"train": {"out_dir": str(checkpoint.path.parent)}})
    if options.dry_run:
        from longnet.cli.dry_run import print_estimate

        if is_first():
            print_estimate(config)
        return 0
    with joined(config.train) as comm, _numbered_folder(config, comm) as config:
        trainer = Trainer(config, resume=checkpoint, comm=comm)
        if trainer.world.is_main:
            _introduce(trainer)
        return _conclude(trainer, trainer.train())


def _base(options: argparse.Namespace) -> RunConfig:
    """The settings that a configuration file and single settings replace."""
    from longnet.config import RunConfig

    preset = options.preset
    if preset is None and options.config is None:
        preset = "demo"
    config = RunConfig() if preset is None else RunConfig.preset(preset)
    return config.merge({"train": {"out_dir": config.train.out_dir + _NUMBERED}})


def _settings(options: argparse.Namespace, base: RunConfig) -> RunConfig:
    """All settings of the command line laid over `base`."""
    config = type(base).load(options.config, base=base) if options.config is not None else base
    if options.task is not None:  # first, as other settings need it
        config = config.merge({"data": {"task": options.task}})
    names = "out_dir", "device", "dtype", "sequence_parallel", "data_parallel", "detect_anomaly"
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return config.override(options.set, {"train": given})


@contextmanager
def _numbered_folder(config: RunConfig, comm: Communicator | None) -> Iterator[RunConfig]:
    """Put a new folder's name in the place of one that ends in -NNN; rank 0 makes the folder."""
    stem = config.train.out_dir.removesuffix(_NUMBERED)
    if stem == config.train.out_dir:
        yield config
        return
    folder = _new_folder(stem) if comm is None or comm.rank == 0 else None
    name = str(folder) if comm is None else comm.gather_objects(str(folder))[0]
    try:
        yield config.merge({"train": {"out_dir": name}})
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):  # stays unless it is empty
                folder.rmdir()


def _new_folder(stem: str) -> Path:
    """Make the folder of the number after the last one."""
    while True:
        folder = Path(f"{stem}-{_numbers(stem)[-1] + 1:03}")
        with contextlib.suppress(FileExistsError):  # another run was quicker
            folder.mkdir(parents=True)
            return folder


def _last(out_dir: str) -> str:
    """The folder that `out_dir` names, with the highest number in the place of -NNN."""
    stem = out_dir.removesuffix(_NUMBERED)
    number = _numbers(stem)[-1]
    return f"{stem}-{number:03}" if number and stem != out_dir else out_dir


def _numbers(stem: str) -> list[int]:
    """The numbers of the folders that are called `stem` and a number, after a 0; sorted."""
    pattern = re.compile(rf"{re.escape(Path(stem).name)}-(\d+)", re.ASCII)
    parent = Path(stem).parent
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    return sorted([0, *(int(match[1]) for name in names if (match := pattern.fullmatch(name)))])


def _introduce(trainer: Trainer) -> None:
    import longnet

    train, model, data = trainer.config.train, trainer.config.model, trainer.data
    lengths, rates = model.levels(0)
    levels = " ".join(f"{w}/{r}" for w, r in zip(lengths, rates, strict=True))
    per_step = train.batch_size * train.accumulate * train.sequence_length
    mesh = trainer.world.text()
    print(
        f"model  {trainer.model.num_parameters():,} parameters, {model.num_layers} layers of "
        f"{model.embed_dim}, {model.mixer} attention {levels}\n"
        f"data   {data.text()}\n"
        f"run    {trainer.out_dir}: steps {trainer.step} to {train.steps} of {per_step:,} tokens, "
        f"length {train.sequence_length:,}, {longnet.num_threads()} threads"
        + (f"\nmesh   {mesh}" if mesh else ""),
        flush=True,
    )


def _conclude(trainer: Trainer, outcome: Outcome) -> int:
    if outcome.stopped_by is not None:
        if trainer.world.is_main:
            print(
                f"longnet: stopped by {outcome.stopped_by.name} after step {trainer.step} of "
                f"{trainer.config.train.steps}, saved {outcome.checkpoint}; go on with: "
                f"longnet train --resume {trainer.out_dir}",
                file=sys.stderr,
            )
        return 128 + outcome.stopped_by
    evaluation = outcome.evaluation or trainer.evaluate()
    if trainer.world.is_main:
        from longnet.cli.summary import print_summary

        print_summary(trainer, evaluation, outcome.checkpoint)
    return 0
