"""What every measurement prints and saves: where and how it ran, and an aligned table."""

import datetime
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Settings that change what is measured, as far as they are set.
SETTINGS = (
    "LONGNET_CPU",
    "LONGNET_NUM_THREADS",
    "LONGNET_CUDA_KERNELS",
    "LONGNET_CUDA_LIBRARY",
    "LONGNET_POISON",
)


def header(device: str, hardware: dict[str, Any]) -> dict[str, Any]:
    """When, by which command, and on what."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(),
        "device": device,
        **hardware,
    }


def command() -> str:
    """The command line of this process, its settings before it; of absolute paths the last part,
    as where results are saved says nothing of them."""
    program = sys.argv[0]
    program = (
        f"python {os.path.relpath(program)}" if program.endswith(".py") else Path(program).name
    )
    settings = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    return " ".join(
        [
            *settings,
            program,
            *(shlex.quote(Path(a).name if os.path.isabs(a) else a) for a in sys.argv[1:]),
        ]
    )


def aligned(lines: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Cells in columns, the first `left` of them flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def publish(
    name: str,
    facts: dict[str, Any],
    table: str,
    records: Iterable[dict[str, Any]],
    folder: str | None,
) -> None:
    """Print the header and the table, and save them where asked: NAME_DEVICE.txt beside
    NAME_DEVICE.jsonl, which holds the header and then a record a line."""
    text = "\n".join([*(f"{fact}: {value}" for fact, value in facts.items()), "", table])
    print(text, flush=True)
    if folder is None:
        return
    path = Path(folder) / f"{name}_{facts['device']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(line) + "\n" for line in (facts, *records))
    path.with_suffix(".jsonl").write_text(lines)
    path.with_suffix(".txt").write_text(text + "\n")
