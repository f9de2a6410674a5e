"""Time and memory of a generated token against the length of its context; tokens generated over a
cache against those of passes over everything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter, process_time

import numpy as np

import longnet
from longnet import blas
from longnet.autograd import no_grad
from longnet.bench import report
from longnet.bench.devices import CpuDevice, gpu_hardware
from longnet.config import Config
from longnet.generate import ModelCache, generate, read
from longnet.model import LongNet

CONTEXTS = 32768, 131072, 524288, 1048576
STEPS = 24  # tokens that are timed together: every head takes part on every level
ROUNDS = 25
CHECK_PROMPT = 100

# The paper's levels; small enough for a CPU to read a million tokens in a minute or two.
MODELS = {
    "cpu": Config(num_layers=2, embed_dim=128, num_heads=4),
    "cuda": Config.preset("125m"),
}
# Segments of all levels end several times in 10,000 tokens, and some rates divide no length.
CHECK = Config(
    num_layers=2,
    embed_dim=128,
    num_heads=8,
    num_kv_heads=4,
    segment_lengths=(128, 512, 2048, 4096),
    dilation_rates=(1, 3, 5, 12),
)


@dataclass
class Row:
    """What was measured at one length."""

    context: int
    read_per_second: float  # tokens of the prompt, since the length before
    rows_per_head: int
    cache_mb: float
    dense_mb: float  # of all keys and values, which dense attention keeps
    ms: float = 0.0  # a token, the median of the rounds
    cpu_ms: float = 0.0  # likewise, of processors: without the time that others have them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--device", choices=tuple(MODELS), default="cpu")
    parser.add_argument(
        "--longest", type=int, default=CONTEXTS[-1], help="leave out longer contexts"
    )
    parser.add_argument("--threads", type=int, help="of longnet and of the BLAS (default: all)")
    parser.add_argument(
        "--check",
        type=int,
        default=0,
        metavar="N",
        help="also generate N tokens greedily, and compare them with passes over everything",
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write generate_DEVICE.jsonl and .txt there (default: bench/results)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    device = options.device
    if options.threads:
        longnet.set_num_threads(options.threads)
        blas.set_num_threads(options.threads)
    hardware = CpuDevice().hardware() if device == "cpu" else gpu_hardware()
    dtype = "float32" if device == "cpu" else "bfloat16"
    model = LongNet(MODELS[device], dtype=dtype, device=device)
    rows = measure(model, [n for n in CONTEXTS if n <= options.longest])
    facts = report.header(device, hardware)
    facts["model"] = describe(model)
    text = table(rows)
    if options.check:
        checked = LongNet(CHECK, device=device)
        text += f"\n\n{describe(checked)}:\n{check(checked, options.check)}"
    report.publish("generate", facts, text, map(asdict, rows), options.save)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


def measure(model: LongNet, contexts: Sequence[int]) -> list[Row]:
    """Read one long text, and time the tokens that end at each of `contexts`."""
    rng = np.random.default_rng(0)
    config, reading, rows, caches = model.config, model.cache(), [], []
    for context in contexts:
        new = context - STEPS - reading.seen[0]
        begin = perf_counter()
        read(model, reading, [rng.integers(0, config.vocab_size, new)])
        seconds = perf_counter() - begin
        caches.append(copy(model, reading))
        itemsize = 4 if model.embedding.dtype == "float32" else 2
        dense = 2 * context * config.num_layers * config.kv_heads * config.head_dim * itemsize
        per_head = sum(-(-w // r) for w, r in zip(*config.levels(0), strict=True))
        rows.append(Row(context, new / seconds, per_head, reading.nbytes / 1e6, dense / 1e6))
    times: list[list[tuple[float, float]]] = [[] for _ in contexts]
    for _ in range(ROUNDS):  # in turns, so that what else the machine does meets all of them
        for cache, found in zip(caches, times, strict=True):
            again = copy(model, cache)
            begin, cpu_begin = perf_counter(), process_time()
            generate(model, [], STEPS, cache=again)
            found.append((perf_counter() - begin, process_time() - cpu_begin))
    for row, found in zip(rows, times, strict=True):
        row.ms, row.cpu_ms = (median(each) / STEPS * 1e3 for each in zip(*found, strict=True))
    return rows


def copy(model: LongNet, cache: ModelCache) -> ModelCache:
    """Another cache that has seen the same."""
    other = model.cache(len(cache.seen))
    for one, layer in zip(other.layers, cache.layers, strict=True):
        one.restore(layer.seen, layer.state())
    other.seen, other.logits = list(cache.seen), cache.logits
    return other


def check(model: LongNet, count: int) -> str:
    """Generate greedily, and say how many tokens are the best of a pass over all before them.

    One pass over everything gives the logits of them all: it is causal.
    """
    prompt = np.random.default_rng(1).integers(0, model.config.vocab_size, CHECK_PROMPT)
    new = generate(model, prompt, count, temperature=0)
    text = np.concatenate([prompt, new]).astype(np.int32)
    stepwise = model.cache()
    seen: list[float] = []
    with no_grad():
        whole = model.logits(text[None, :-1]).data.to("cpu").numpy()[0, CHECK_PROMPT - 1 :]
        model.hidden(text[None, : CHECK_PROMPT - 1], cache=stepwise)
        for token in text[CHECK_PROMPT - 1 : -1]:
            logits = model.logits(token[None, None], cache=stepwise)
            found = logits.data.to("cpu").numpy()[0, 0]
            seen.append(float(np.abs(found - whole[len(seen)]).max()))
    ordered = np.sort(whole, axis=1)
    phrases = len({tuple(new[at : at + 8].tolist()) for at in range(count - 7)})
    return (
        f"{int((new == whole.argmax(1)).sum()):,} of {count:,} tokens equal "
        f"({phrases:,} different runs of 8)\n"
        f"logits up to {np.abs(whole).max():.3g}, differences up to {max(seen):.2g}, "
        f"least margin of a best token {(ordered[:, -1] - ordered[:, -2]).min():.2g}"
    )


def describe(model: LongNet) -> str:
    """The model in a line."""
    config = model.config
    levels = " ".join(f"{w}/{r}" for w, r in zip(*config.levels(0), strict=True))
    return (
        f"{config.num_layers} layers of {config.embed_dim}, {config.num_heads} heads, "
        f"{config.kv_heads} key heads, {levels}, {model.embedding.dtype}"
    )


def table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    lines = [["context", "read/s", "rows a head", "cache MB", "dense MB"]]
    lines[0] += ["ms/token", "ratio", "CPU ms/token", "ratio"]
    for row in rows:
        cells = (f"{row.context:,}", f"{row.read_per_second:,.0f}", f"{row.rows_per_head:,}")
        sizes = (f"{row.cache_mb:,.1f}", f"{row.dense_mb:,.1f}")
        times = (f"{row.ms:.3f}", f"{row.ms / rows[0].ms:.3f}")
        times += (f"{row.cpu_ms:.3f}", f"{row.cpu_ms / rows[0].cpu_ms:.3f}")
        lines.append([*cells, *sizes, *times])
    return "\n".join(report.aligned(lines))
