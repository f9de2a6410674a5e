"""Attention over a billion tokens: one layer, forward, streamed through one GPU or several.

12 heads of 64, segment lengths that grow by 4 from 2,048 to all tokens, dilation rates that grow
with them, causal, bfloat16. q, k and v are made on the device piece by piece from a counter-based
random number generator. The time of a token is set beside that of one call on 1,048,576 tokens with
levels up to its own length, which has as many (query, key) pairs a token; single rows, over the
whole length, are computed in float64 from the definition.

Started by torchrun or mpirun, it measures 1, 2, 4, ... of the ranks in turn.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

from longnet._core import Tensor
from longnet.attention import DilatedAttention
from longnet.bench import report
from longnet.bench.billion_rows import NAMES, Errors, Rows, exact_row, rounded, sampled_rows
from longnet.bench.growing import growing_levels
from longnet.bench.ranks import hardware, progress, sizes, slowest, subset, timed
from longnet.communicator import Communicator
from longnet.parallel import shard

HEADS, HEAD_DIM = 12, 64
SHORT = 1 << 20


@dataclass
class Row:
    """What was measured of one number of tokens on some ranks."""

    name: str
    ranks: int
    tokens: int
    ns_per_token: float
    tflops: float  # a rank
    peak_gb: float  # of the rank that holds most
    received_mb: float | None = None  # by the rank that receives most
    errors: Errors | None = None  # of sampled rows
    rounding: Errors | None = None  # of the exact rows in bfloat16


def short(comm: Communicator, rows: Rows, tokens: int, repeats: int) -> list[Row]:
    """One call on `tokens` tokens, made anew each time; and making them alone."""
    attention = DilatedAttention(*growing_levels(tokens))

    def make() -> list[Tensor]:
        return [rows.make(name, 0, tokens) for name in NAMES]

    def attend() -> None:
        for _ in range(repeats):
            attention.forward(*make())

    def only_make() -> None:
        for _ in range(repeats):
            make()

    attention.forward(*make())  # fills the allocators
    found = []
    for name, call, flops in (
        ("rows alone", only_make, 0),
        ("one call", attend, attention.pairs(tokens, HEADS) * 4 * HEAD_DIM),
    ):
        seconds, peak = slowest(comm, *timed(comm.device, call))
        seconds /= repeats
        found.append(
            Row(name, 1, tokens, seconds / tokens * 1e9, flops / seconds / 1e12, peak / 1e9)
        )
    return found


def long(
    comm: Communicator, rows: Rows, tokens: int, piece: int, samples: list[tuple[int, int]]
) -> Row:
    """All tokens through the ranks of `comm`."""
    attention = DilatedAttention(*growing_levels(tokens))
    begin, end = shard(tokens, comm.size, comm.rank)
    mine = [(row, head) for row, head in samples if begin <= row < end]
    kept: dict[int, Tensor] = {}

    def sink(first: int, out: Tensor, _: Tensor) -> None:
        for row, _head in mine:
            at = row - begin - first
            if 0 <= at < out.shape[1]:
                kept[row] = out[:, at : at + 1].copy()

    def call() -> None:
        parts = [rows.part(name, begin, end) for name in NAMES]
        attention.stream(*parts, piece=piece, sink=sink, device=comm.device, comm=comm)

    received = comm.bytes_received
    comm.barrier()
    seconds, peak = slowest(comm, *timed(comm.device, call))
    received = max(comm.gather_objects(comm.bytes_received - received))
    off = []
    for row, head in mine:
        exact = exact_row(rows, attention, row, head)
        found = kept[row].to("cpu").numpy()[0, 0, head]
        off.append((Errors.of(found, exact), Errors.of(rounded(exact), exact)))
    pairs = [pair for pairs in comm.gather_objects(off) for pair in pairs]
    errors, rounding = (Errors.together(each) for each in zip(*pairs, strict=True))
    flops = attention.pairs(tokens, HEADS) * 4 * HEAD_DIM
    return Row(
        name=f"pieces of {piece:,}",
        ranks=comm.size,
        tokens=tokens,
        ns_per_token=seconds / tokens * 1e9,
        tflops=flops / seconds / 1e12 / comm.size,
        peak_gb=peak / 1e9,
        received_mb=received / 1e6,
        errors=errors,
        rounding=rounding,
    )


def table(rows: list[Row]) -> list[str]:
    """The rows as aligned text, and what must hold."""
    lines = [["", "ranks", "tokens", "ns/token", "TFLOP/s a rank", "peak GB", "received MB"]]
    for row in rows:
        cells = [f"{row.ns_per_token:.2f}", f"{row.tflops:.1f}" if row.tflops else ""]
        cells.append(f"{row.peak_gb:.1f}")
        cells.append("" if row.received_mb is None else f"{row.received_mb:.1f}")
        lines.append([row.name, f"{row.ranks}", f"{row.tokens:,}", *cells])
    text = report.aligned(lines, left=1)
    call = rows[1]
    streamed = rows[2:]
    one = next((row for row in streamed if row.ranks == 1), None)
    text.append("")
    if one is not None:
        ratio = one.ns_per_token / call.ns_per_token
        text.append(f"time a token of {one.tokens:,} over {call.tokens:,}: {ratio:.3f}")
    for row in streamed:
        if one is not None and row is not one:
            ratio = one.ns_per_token / row.ns_per_token
            text.append(f"speed of {row.ranks} ranks over one: {ratio:.3f}")
        text.append(
            f"sampled rows, {row.ranks} ranks, against float64: {_described(row.errors)}; "
            f"the exact rows in bfloat16: {_described(row.rounding)}"
        )
    return text


def _described(errors: Errors | None) -> str:
    if errors is None:
        return "none"
    return f"root mean square {errors.mean:.2e}, worst element {errors.worst:.2e}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--tokens", type=int, default=1 << 30, help="default: 2^30")
    parser.add_argument("--piece", type=int, default=1 << 22, help="default: 2^22")
    parser.add_argument("--repeats", type=int, default=16, help="of the short call (default: 16)")
    parser.add_argument("--rows", type=int, default=16, help="rows to check (default: 16)")
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write billion_DEVICE.jsonl and .txt there (default: bench/results)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, and save it where asked."""
    with Communicator.from_environment(options.device) as world:
        rows = Rows(HEADS, HEAD_DIM, world.device)
        found = short(world, rows, min(SHORT, options.tokens), options.repeats)
        rate = max(growing_levels(options.tokens)[1])
        samples = sampled_rows(options.tokens, rate, HEADS, options.rows)
        for row in found:
            progress(world, asdict(row))
        for size in sizes(world.size):
            with subset(world, size) as comm:
                if comm is not None:
                    found.append(long(comm, rows, options.tokens, options.piece, samples))
                    progress(world, asdict(found[-1]))
        if world.rank == 0:
            facts = report.header(world.device.partition(":")[0], hardware(world))
            records = [asdict(row) for row in found]
            report.publish("billion", facts, "\n".join(table(found)), records, options.save)
    return 0


def main() -> int:
    """The command line of bench/billion.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())
