"""Score a trained model: on a task over lengths and depths, on a benchmark's files, or on text."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longnet.cli.load import Trained
    from longnet.evaluate.tasks import Cell

HELP = "score a trained model on a task, on a benchmark's files, or on text"
RESULTS = "results.jsonl"

_EXAMPLES = 100
_SHEET_IMAGES = 24
_TEXT_TASKS = "lambada", "pg19", "longbench"
_TASK_KEYS = "task", "shortcut_name", "bins"  # of a cell, which a table has no room for
_COLUMN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of the command."""
    parser.add_argument(
        "--checkpoint", metavar="PATH", required=True, help="a run's folder or one checkpoint"
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="a task that makes itself, such as induction_heads or needle; or one of files, which "
        "--data names: lambada, pg19, longbench, lra_listops, lra_text, lra_retrieval, "
        "lra_pathfinder, mnist (default: none, but the loss on --data)",
    )
    parser.add_argument(
        "--data", metavar="PATH", nargs="+", help="files, folders or globs, which the user has"
    )
    parser.add_argument(
        "--lengths",
        metavar="N,...",
        type=_numbers(int),
        help="tokens of an example or of a window of text (default: that of the training)",
    )
    parser.add_argument(
        "--depths",
        metavar="P,...",
        type=_numbers(float),
        help="shares of the tokens before the evidence, 0 to 1 (default: drawn at random)",
    )
    parser.add_argument(
        "--examples",
        metavar="K",
        type=int,
        help="examples of each length and depth; windows, books or passages of files "
        f"(default: {_EXAMPLES} of what makes itself and of text, else all)",
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the examples")
    parser.add_argument("--device", metavar="DEVICE", help="default: the run's")
    parser.add_argument("--dtype", metavar="DTYPE", help="of activations; default: the run's")
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="of longbench: its dataset2prompt.json (default: context and question alone)",
    )
    parser.add_argument(
        "--new-tokens", metavar="N", type=int, default=64, help="of longbench: tokens of an answer"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help=f"keep {RESULTS} and figures here, in a new folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines, no table")


def run(options: argparse.Namespace) -> int:
    """Evaluate, print and draw; return the exit code."""
    from longnet.cli.load import load_trained
    from longnet.errors import ConfigError
    from longnet.evaluate.file_tasks import FILE_TASKS

    if options.task is None and options.data is None:
        raise ConfigError("evaluate: found neither --task nor --data, expected at least one")
    if options.depths is not None and options.task in (None, *_TEXT_TASKS):
        raise ConfigError("--depths: found some, expected none but with a task that has a depth")
    if options.examples is not None and options.examples < 1:
        raise ConfigError(f"--examples: found {options.examples}, expected at least 1")
    out = _new_folder(options.out)
    trained = load_trained(options.checkpoint, options.device, options.dtype)
    if options.task is None:
        _run_text(trained, options, out)
    elif options.task in _TEXT_TASKS:
        _report(_benchmark(trained, options), trained, options, out)
    else:
        _run_task(trained, options, out, of_files=options.task in FILE_TASKS)
    return 0


def _run_task(
    trained: Trained, options: argparse.Namespace, out: Path | None, *, of_files: bool
) -> None:
    from longnet import tasks
    from longnet.evaluate.figures import draw_cells, draw_sheet
    from longnet.evaluate.file_tasks import open_file_task
    from longnet.evaluate.tasks import evaluate_task, held_out

    if of_files:
        task = open_file_task(options.task, _one_path(options), "test")
        examples = options.examples or len(task.items)
    else:
        task = tasks.get(options.task)
        examples = options.examples or _EXAMPLES
    lengths = options.lengths or [trained.config.train.sequence_length]
    cells: list[Cell] = []

    def records() -> Iterator[dict[str, Any]]:
        for cell in evaluate_task(
            trained.model,
            task,
            lengths,
            options.depths,
            examples=examples,
            seed=options.seed,
            device=trained.config.train.device,
        ):
            cells.append(cell)
            yield cell.to_dict()

    if not options.json:
        print(f"{task.name} ({task.paper})\nshortcut: {task.shortcut_name}", flush=True)
    _report(records(), trained, options, out)
    if out is None:
        return
    drawn = draw_cells(cells, out, trained.config.train.sequence_length)
    if hasattr(task, "image"):
        shown = [task.make(held_out(options.seed), i, lengths[0]) for i in range(_SHEET_IMAGES)]
        images = [task.image(example) for example in shown]
        titles = [f"class {example.answers[0]}" for example in shown]
        drawn.append(draw_sheet(images, titles, out / "images.png"))
    if not options.json:
        for path in drawn:
            print(path)


def _benchmark(trained: Trained, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Records of a published benchmark of text."""
    from longnet.data import load_tokenizer
    from longnet.evaluate import readers
    from longnet.evaluate.longbench import evaluate_longbench, read_prompts
    from longnet.evaluate.text import evaluate_books, evaluate_lambada

    path = _one_path(options)
    tokenizer = load_tokenizer(trained.config.data.tokenizer)
    common = {"examples": options.examples, "device": trained.config.train.device}
    if options.task == "lambada":
        passages = readers.read_lambada(path)
        yield evaluate_lambada(trained.model, tokenizer, passages, **common)
    elif options.task == "pg19":
        for length in options.lengths or [trained.config.train.sequence_length]:
            books = readers.read_pg19(path)
            yield from evaluate_books(trained.model, tokenizer, books, length, **common)
    else:
        prompts = read_prompts(options.prompts) if options.prompts else {}
        for length in options.lengths or [None]:
            yield from evaluate_longbench(
                trained.model,
                tokenizer,
                readers.read_longbench(path),
                prompts=prompts,
                new_tokens=options.new_tokens,
                length=length,
                examples=options.examples,
            )


def _run_text(trained: Trained, options: argparse.Namespace, out: Path | None) -> None:
    """Losses on the text of --data from contexts of each length."""
    import numpy as np

    from longnet.data import load_tokenizer, open_source, validation_windows
    from longnet.evaluate.figures import draw_contexts
    from longnet.evaluate.text import evaluate_contexts

    data = trained.config.data
    lengths = options.lengths or [trained.config.train.sequence_length]
    tokenizer = load_tokenizer(data.tokenizer)
    vocab_size = trained.config.model.vocab_size
    where = None if options.data == ["stdlib"] else options.data
    source = open_source(
        where,
        "validation",
        tokenizer,
        validation=where,  # all of it
        format=data.format,
        vocab_size=vocab_size,
    )
    longest = min(max(lengths), len(source) - 1)  # the whole text where it is shorter
    inputs, targets = validation_windows(source, longest, options.examples or _EXAMPLES)
    rows = np.concatenate([inputs, targets[:, -1:]], axis=1)
    num_bytes = None
    if int(targets.max()) < tokenizer.vocab_size:
        num_bytes = sum(tokenizer.num_bytes(row) for row in targets) or None
    records = evaluate_contexts(
        trained.model, rows, lengths, num_bytes=num_bytes, device=trained.config.train.device
    )
    reported = _report(records, trained, options, out)
    if out is not None and len(lengths) > 1:
        path = draw_contexts(reported, out / "context.png", trained.config.train.sequence_length)
        if not options.json:
            print(path)


def _report(
    records: Iterable[Mapping[str, Any]],
    trained: Trained,
    options: argparse.Namespace,
    out: Path | None,
) -> list[Mapping[str, Any]]:
    """Print records as they come, and keep them in `out`; return them."""
    known = {"checkpoint": str(trained.checkpoint.path), "step": trained.checkpoint.step}
    header, reported = False, []
    for record in records:
        reported.append(record)
        line = json.dumps({**known, "seed": options.seed, **record}, allow_nan=False)
        if out is not None:
            with (out / RESULTS).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if options.json:
            print(line, flush=True)
            continue
        hidden = _TASK_KEYS if "shortcut" in record else ()
        shown = {k: v for k, v in record.items() if k not in hidden}
        if not header:
            print("  ".join(_padded(k, v, k) for k, v in shown.items()))
            header = True
        print("  ".join(_padded(k, v, _text_of(v)) for k, v in shown.items()), flush=True)
    return reported


def _padded(name: str, value: Any, text: str) -> str:
    width = max(len(name), _COLUMN if isinstance(value, str) else 7)
    return f"{text:<{width}}" if isinstance(value, str) else f"{text:>{width}}"


def _text_of(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if value < 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _new_folder(name: str | None) -> Path | None:
    """The folder of --out, made where it is missing."""
    from longnet.errors import DataError

    if name is None:
        return None
    folder = Path(name)
    if (folder / RESULTS).exists():
        raise DataError(f"{folder / RESULTS}: found results, expected none: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _one_path(options: argparse.Namespace) -> Path:
    from longnet.errors import ConfigError

    if options.data is None or len(options.data) != 1:
        found = "none" if options.data is None else len(options.data)
        raise ConfigError(f"--data: found {found}, expected one path for task {options.task}")
    return Path(options.data[0])


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError:
            names = {int: "whole numbers", float: "numbers"}
            raise argparse.ArgumentTypeError(
                f"found {text!r}, expected {names[kind]} with commas between them"
            ) from None

    return parse
