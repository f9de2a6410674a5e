"""How much memory a run takes, found out by small steps of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from longnet import random
from longnet._core import empty_cache, memory_stats, reset_peak_memory
from longnet.config import RunConfig, TrainConfig
from longnet.errors import CommunicatorError, OutOfMemoryError
from longnet.model import RECOMPUTE, LongNet
from longnet.optim import AdamW
from longnet.recompute import CHUNK_ROWS

if TYPE_CHECKING:
    from longnet.train.trainer import Trainer

Result = TypeVar("Result")

# Tokens of the larger of two steps, unless the run's has fewer; the other one is half of it. On a
# GPU beyond where what is computed in chunks of rows stops growing; on a CPU what takes seconds.
_MOST_TOKENS = {"cpu": 8192, "cuda": 2 * CHUNK_ROWS}
_LEAST_TOKENS = 8192
_USABLE = 0.95  # of a card; the rest is the driver's, and what a pool cannot use


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one update on one rank, as a line through what small updates took.

    Attributes
    ----------
    state_bytes : int
        Weights, gradients and this rank's part of the optimizer's moments.
    fixed_bytes : float
        Peak of an update of no tokens, `state_bytes` included.
    bytes_per_token : float
        What the peak grows by with each token of one pass.
    """

    state_bytes: int
    fixed_bytes: float
    bytes_per_token: float

    def peak_bytes(self, tokens: int) -> float:
        """Peak of an update whose passes have so many tokens."""
        return self.fixed_bytes + self.bytes_per_token * tokens

    def tokens_that_fit(self, num_bytes: int) -> int:
        """Most tokens of a pass within so many bytes."""
        return max(0, int((num_bytes - self.fixed_bytes) / self.bytes_per_token))


def tokens_per_rank(settings: TrainConfig) -> int:
    """Most tokens of a pass that one rank has."""
    sequences = settings.batch_size // settings.data_parallel
    return sequences * -(-settings.sequence_length // settings.sequence_parallel)


def estimate_memory(config: RunConfig) -> MemoryEstimate:
    """Make two small updates of a run's model on its device, and see what they take.

    Where they do not fit, smaller ones. Of many ranks it is what one takes, but for what one alone
    does not have: other ranks' keys and values, and what the collectives work in.

    Raises
    ------
    OutOfMemoryError
        Not even these fit.
    """
    settings = config.train
    device = settings.device
    larger = min(
        max(tokens_per_rank(settings), 2),
        _MOST_TOKENS[device.partition(":")[0]],
    )
    model = LongNet(config.model, dtype=settings.dtype, device=device)
    before = memory_stats(device)["bytes"]
    optimizer = AdamW(model.parameters(), dtype=settings.dtype)
    weights = 4 * model.num_parameters()
    state = memory_stats(device)["bytes"] - before + 2 * weights  # and the gradients
    while True:
        try:
            low, high = (
                _peak_of_step(config, model, optimizer, n) - before + weights
                for n in (larger // 2, larger)
            )
            break
        except OutOfMemoryError:
            if larger <= _LEAST_TOKENS:
                raise
        optimizer.zero_grad()
        larger //= 2
    ranks = settings.sequence_parallel * settings.data_parallel
    elsewhere = 2 * weights - 2 * weights // ranks  # moments that other ranks have
    # At least a byte: of few tokens the peak may be the update's, which does not grow.
    slope = max(1.0, (high - low) / (larger - larger // 2))
    return MemoryEstimate(state - elsewhere, high - elsewhere - slope * larger, slope)


def _peak_of_step(config: RunConfig, model: LongNet, optimizer: AdamW, tokens: int) -> int:
    """The most memory held during one update from a sequence of so many tokens."""
    settings = config.train
    ids = np.random.default_rng(0).integers(0, config.model.vocab_size, (1, tokens + 1))
    ids = ids.astype(np.int32)
    reset_peak_memory(settings.device)
    with random.use(random.RandomState()):
        loss = model.loss(
            ids[:, :-1],
            ids[:, 1:],
            chunk=settings.loss_chunk,
            recompute=settings.recompute,
            deterministic=settings.deterministic,
        )
    loss.backward()
    optimizer.step(0.0, optimizer.clip_factor(1.0)[0])
    optimizer.zero_grad()
    return memory_stats(settings.device)["peak_bytes"]


def what_would_fit(config: RunConfig) -> str:
    """Say how many tokens of one pass a GPU has room for, by what is computed again.

    Returns
    -------
    str
        Empty where the device is the CPU, or has no room for even the smallest step.
    """
    settings = config.train
    if settings.device == "cpu":
        return ""
    total = memory_stats(settings.device)["total_bytes"]
    fits = []
    for recompute in RECOMPUTE:
        try:
            estimate = estimate_memory(config.merge({"train": {"recompute": recompute}}))
        except OutOfMemoryError:
            continue
        tokens = estimate.tokens_that_fit(int(total * _USABLE))
        fits.append(f"about {tokens:,} with train.recompute={recompute}")
    if not fits:
        return ""
    ranks = settings.sequence_parallel * settings.data_parallel
    of = f"tokens a pass{' of this rank' if ranks > 1 else ''}"
    return f"{tokens_per_rank(settings):,} {of}, of which would fit: {', '.join(fits)}"


def explain_shortage(trainer: Trainer, run: Callable[[], Result]) -> Result:
    """Return ``run()``; where memory is short, say what would fit.

    Raises
    ------
    OutOfMemoryError
        With the step, what was asked for, and `what_would_fit`.
    """
    try:
        with trainer.world.told():  # at once: what would fit takes a while
            return run()
    except OutOfMemoryError as error:
        reason = str(error)
    # Only here nothing else holds any more what the step had in memory.
    with suppress(CommunicatorError):  # of gradients that were on their way
        trainer.optimizer.zero_grad()
    device = trainer.world.device
    empty_cache(device)
    fits = what_would_fit(trainer.config.merge({"train": {"device": device}}))
    raise OutOfMemoryError(f"step {trainer.step + 1}: {reason}" + (f"; {fits}" if fits else ""))
