"""What a run would take, without the run."""

from __future__ import annotations

from longnet._core import memory_stats
from longnet.config import RunConfig
from longnet.flops import flops_per_token, peak_flops
from longnet.model import LongNet
from longnet.train import estimate_memory
from longnet.train.memory import tokens_per_rank


def print_estimate(config: RunConfig) -> None:
    """Print parameters, memory and operations of a run's steps; memory of one rank."""
    settings = config.train
    ranks = settings.sequence_parallel * settings.data_parallel
    tokens = tokens_per_rank(settings)
    memory = estimate_memory(config)
    model = LongNet(config.model, dtype=settings.dtype, device=settings.device)
    flops = flops_per_token(model, settings.sequence_length)
    peak = memory.peak_bytes(tokens)
    rows = {}
    if ranks > 1:
        rows["ranks"] = (
            f"{ranks}: sequence parallel {settings.sequence_parallel}, data parallel "
            f"{settings.data_parallel}; memory is that of one, without what travels"
        )
    rows |= {
        "parameters": f"{model.num_parameters():,}",
        "weights, gradients, moments": _gigabytes(memory.state_bytes),
        "activations": f"{_gigabytes(peak - memory.state_bytes)} for {tokens:,} tokens, "
        f"{memory.bytes_per_token / 1e3:,.1f} kB a token (recompute: {settings.recompute})",
        "peak": _gigabytes(peak),
        "operations": f"{flops / 1e9:.3f} GFLOP a token",
    }
    if settings.device != "cpu":
        total = memory_stats(settings.device)["total_bytes"]
        rows["device"] = (
            f"{_gigabytes(total)}: {memory.tokens_that_fit(total):,} tokens a pass would fit"
        )
    could = peak_flops(settings.device, settings.dtype)
    if could is not None:
        rows["at half its peak"] = f"{ranks * could / 2 / flops:,.0f} tokens/s"
    width = max(map(len, rows)) + 2
    print("\n".join(f"{name:<{width}}{text}" for name, text in rows.items()))


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
