"""Runs the notebooks with the settings that they have for a device, each in a process of its own,
and keeps what they print."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

from longnet.bench import report
from longnet.bench.devices import CpuDevice, gpu_hardware
from longnet.bench.records import Record, Records
from longnet.errors import ConfigError, LongNetError

TRACEBACK = 12  # last lines of a failed notebook's


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run notebooks; return the exit code, 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--only", metavar="NAME,...", help="these notebooks alone (default: all)")
    parser.add_argument(
        "--notebooks",
        type=Path,
        default=Path("notebooks"),
        metavar="FOLDER",
        help="where their scripts lie (default: notebooks)",
    )
    parser.add_argument(
        "--save",
        nargs="?",
        type=Path,
        const=Path("bench/results"),
        metavar="FOLDER",
        help="add each run to notebooks_DEVICE.jsonl there, and write the last one of each "
        "notebook to notebooks_DEVICE.txt (default: bench/results)",
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="keep their figures there")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except LongNetError as error:
        parser.exit(1, f"notebooks: {error}\n")


def _run(options: argparse.Namespace) -> int:
    device = options.device
    paths = select(options.notebooks, options.only)
    hardware = CpuDevice().hardware() if device == "cpu" else gpu_hardware()
    results = None
    if options.save is not None:
        results = Records(options.save / f"notebooks_{device}.jsonl", _check)
    lines, code = [["", "seconds"]], 0
    for path in paths:
        facts = report.header(device, hardware)
        seconds, output, error = run(path, device, options.figures)
        record = {"notebook": path.stem, **facts, "seconds": seconds, "output": output}
        print("\n".join(section(record)), flush=True)
        state = ""
        if error is not None:
            print(error, flush=True)
            state, code = "failed", 1
        elif results is not None:
            results.append(record)
            text = "\n".join(summary(results.all)) + "\n"
            results.path.with_suffix(".txt").write_text(text)
        lines.append([path.stem, f"{seconds:.0f} {state}".strip()])
    print("\n" + "\n".join(report.aligned(lines, left=2)), flush=True)
    return code


def select(folder: Path, only: str | None) -> list[Path]:
    """The scripts of the notebooks that are wanted.

    Raises
    ------
    ConfigError
        There is none, or none of such a name.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.py"))}
    if not paths:
        raise ConfigError(f"--notebooks: found no script in {folder}, expected one a notebook")
    names = list(paths) if only is None else only.split(",")
    for name in names:
        if name not in paths:
            raise ConfigError(f"--only: found {name!r}, expected some of {', '.join(paths)}")
    return [paths[name] for name in names]


def run(path: Path, device: str, figures: Path | None) -> tuple[float, str, str | None]:
    """Seconds of a notebook's process, what it printed, and the end of its errors if it failed."""
    with tempfile.TemporaryDirectory(prefix="longnet-") as unwanted:
        folder = Path(unwanted) if figures is None else figures
        folder.mkdir(parents=True, exist_ok=True)
        begin = perf_counter()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "longnet.bench.cells", path, device, folder],
            env={**os.environ, "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
        )
        seconds = perf_counter() - begin
    if not done.returncode:
        return seconds, done.stdout, None
    last = done.stderr.splitlines()[-TRACEBACK:]
    return seconds, done.stdout, "\n".join([*last, f"{path.stem}: exit code {done.returncode}"])


def summary(records: Sequence[Record]) -> list[str]:
    """The last run of each notebook: on what and by which commands, seconds, what was printed."""
    last = {record["notebook"]: record for record in records}
    runs = [last[name] for name in sorted(last)]
    lines = list(dict.fromkeys(map(_source, runs)))
    seconds = [["", "seconds"], *([r["notebook"], f"{r['seconds']:.0f}"] for r in runs)]
    lines += ["", *report.aligned(seconds, left=1)]
    for record in runs:
        lines += section(record)
    return lines


def section(record: Mapping[str, object]) -> list[str]:
    """What a notebook printed, under its name."""
    printed = (line.rstrip() for line in str(record["output"]).splitlines())
    return ["", f"== {record['notebook']}", "", *printed]


def _source(record: Mapping[str, object]) -> str:
    hardware = record["gpu"] if "gpu" in record else record["processor"]
    return f"{hardware}, {str(record['date'])[:10]}: {record['command']}"


def _check(record: Record) -> None:
    """Look up what `summary` needs."""
    section(record)
    _source(record)
    float(record["seconds"])
