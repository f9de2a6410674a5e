"""Speed and memory of dilated attention.

On a CPU beside a matrix product of the same run, in GFLOP/s; on a GPU beside what a user of PyTorch
would pick instead, in TFLOP/s. Both count the (query, key) pairs that the definition needs: 4 D
operations a pair forward, 10 D backward.
"""

import argparse

from longnet import _core
from longnet.bench import attention_cpu
from longnet.bench.gpu_attention.shapes import GROUPS

DEVICES = "cpu", "cuda"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument(
        "--repeats",
        type=positive,
        help="repetitions (default: 5; on a GPU up to 20, fewer where they take long)",
    )
    parser.add_argument(
        "--long",
        action="store_true",
        help=f"cpu: also compare {attention_cpu.LONG:,} tokens with {attention_cpu.SHORT:,}; "
        "takes about 7 GB of memory",
    )
    parser.add_argument(
        "--only",
        type=groups,
        metavar="GROUP,...",
        help=f"cuda: these groups alone, of {', '.join(GROUPS)}",
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write attention_DEVICE.jsonl and .txt there (default: bench/results)",
    )
    parser.set_defaults(refuse=parser.error)


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected 1 or more")
    return int(text)


def groups(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in GROUPS:
            raise argparse.ArgumentTypeError(f"{name!r}, expected some of {', '.join(GROUPS)}")
    return names


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, and save it where asked."""
    if options.device == "cpu":
        if options.only is not None:
            options.refuse("argument --only: cpu, expected with --device cuda")
        return attention_cpu.run(options.repeats or 5, options.long, options.save)
    if options.long:
        options.refuse("argument --long: cuda, whose group is --only lengths")
    try:
        from longnet.bench.gpu_attention import measure
    except ImportError as error:
        options.refuse(f"argument --device: cuda measures beside PyTorch: {error}")
    available, reason, _ = _core.cuda_status()
    if not available:
        options.refuse(f"argument --device: cuda: {reason}")
    return measure.run(options.repeats or 20, options.only or list(GROUPS), options.save)


def main() -> int:
    """The command line of bench/attention.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())
