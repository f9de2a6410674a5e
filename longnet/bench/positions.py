"""Bits per byte along texts eight times as long as those a small model was trained on, for several
kinds of positions, and for RoPE with each way to extend its context."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, log, pi

import numpy as np

import longnet
from longnet import blas, optim
from longnet.autograd import no_grad
from longnet.bench import report
from longnet.bench.devices import CpuDevice, gpu_hardware
from longnet.config import Config
from longnet.data import Batches, stdlib_source, validation_windows
from longnet.model import LongNet

TRAINED, TESTED = 512, 4096
# Positions that are scored together: the last of the length trained on, and of each doubling of it.
PLACES = [(end // 2, end) for end in (512, 1024, 2048, 4096)]
POSITIONS = "alibi", "rope", "xpos", "sinusoidal"
SCALINGS = "interpolation", "ntk", "yarn"
BATCH = 8
MODEL = Config(num_layers=2, embed_dim=64, num_heads=4, mixer="dense")


@dataclass
class Row:
    """Bits per byte of one model, at each of `PLACES`."""

    model: str
    bits: list[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--positions", nargs="+", choices=POSITIONS, default=POSITIONS)
    parser.add_argument("--steps", type=int, default=600, help=f"of {BATCH} x {TRAINED} bytes")
    parser.add_argument("--windows", type=int, default=24, help=f"of {TESTED} bytes to score")
    parser.add_argument("--threads", type=int, help="of longnet and of the BLAS (default: all)")
    parser.add_argument(
        "--save",
        nargs="?",
        const="bench/results",
        metavar="FOLDER",
        help="write positions_DEVICE.jsonl and .txt there (default: bench/results)",
    )
    options = parser.parse_args(arguments)
    if options.threads:
        longnet.set_num_threads(options.threads)
        blas.set_num_threads(options.threads)
    rows = []
    for position in options.positions:
        model = trained(replace(MODEL, position=position), options.steps, options.device)
        rows.append(Row(f"{position}, {TRAINED} at a time", bits(model, options.windows, TRAINED)))
        rows.append(Row(position, bits(model, options.windows)))
        for scaling in SCALINGS if position == "rope" else ():
            longer = LongNet(extended(model.config, scaling), device=options.device)
            longer.load_state_dict(model.state_dict())
            rows.append(Row(f"rope, {scaling}", bits(longer, options.windows)))
    hardware = CpuDevice().hardware() if options.device == "cpu" else gpu_hardware()
    facts = report.header(options.device, hardware)
    facts["model"] = (
        f"{MODEL.num_layers} layers of {MODEL.embed_dim}, dense attention, float32; "
        f"{options.steps} steps of {BATCH} x {TRAINED} bytes of Python's standard library"
    )
    report.publish("positions", facts, table(rows), map(asdict, rows), options.save)
    return 0


def extended(config: Config, scaling: str) -> Config:
    """RoPE for texts as long as those that are scored."""
    return replace(
        config,
        position_scaling=scaling,
        position_factor=TESTED / TRAINED,
        position_length=TRAINED if scaling == "yarn" else None,
    )


def trained(config: Config, steps: int, device: str) -> LongNet:
    """A model after `steps` updates, of which the first tenth warms up and the rest cools down."""
    model = LongNet(config, device=device)
    optimizer = optim.AdamW(model.parameters())
    batches = Batches(stdlib_source("train"), BATCH, TRAINED)
    for step in range(steps):
        loss = model.loss(*next(batches))
        loss.backward()
        done = (step + 1) / steps
        rate = 10 * done if done < 0.1 else 0.5 * (1 + cos(pi * (done - 0.1) / 0.9))
        optimizer.step(4e-3 * rate)
        optimizer.zero_grad()
    return model.eval()


def bits(model: LongNet, windows: int, length: int | None = None) -> list[float]:
    """Bits per byte at each of `PLACES` of text that was not trained on, read whole or in pieces of
    one length: the same bytes, without what is new to the model."""
    losses = []
    with no_grad():
        for tokens, targets in zip(
            *validation_windows(stdlib_source("validation"), TESTED, windows), strict=True
        ):
            logits = model.logits(tokens.reshape(-1, length or TESTED)).data.to("cpu").numpy()
            logits = logits.reshape(TESTED, -1).astype(np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            chosen = logits[np.arange(TESTED), targets]
            losses.append(np.log(np.exp(logits).sum(axis=1)) - chosen)
    mean = np.mean(losses, axis=0) / log(2)
    return [float(mean[begin:end].mean()) for begin, end in PLACES]


def table(rows: Sequence[Row]) -> str:
    """Models downwards, places to the right."""
    lines = [["bits per byte at positions", *(f"{a:,} to {b:,}" for a, b in PLACES)]]
    lines += [[row.model, *(f"{x:.3f}" for x in row.bits)] for row in rows]
    return "\n".join(report.aligned(lines, left=1))
