"""A training step of longnet, on random tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import longnet
from longnet.bench.training.cases import MODEL, Case
from longnet.config import Config
from longnet.flops import flops_per_token
from longnet.model import LongNet
from longnet.optim import AdamW, clip_factor

DEVICE = "cuda"
DTYPE = "bfloat16"


class LongnetStep:
    """What the trainer does for one update, but for the data."""

    def __init__(self, case: Case) -> None:
        config = Config.preset(MODEL)
        self.case = case
        self.model = LongNet(config, dtype=DTYPE, device=DEVICE)
        self.optimizer = AdamW(self.model.parameters(), dtype=DTYPE)
        self.flops_per_token = flops_per_token(self.model, case.tokens)
        ids = np.random.default_rng(0).integers(
            0, config.vocab_size, (case.batch, case.tokens + 1), dtype=np.int32
        )
        self.tokens, self.targets = (np.ascontiguousarray(x) for x in (ids[:, :-1], ids[:, 1:]))

    def __call__(self) -> Callable[[], float]:
        """Queue one update; what is returned waits for its loss."""
        self.optimizer.zero_grad()
        loss = self.model.loss(self.tokens, self.targets, recompute=self.case.recompute)
        loss.backward()
        factor, _ = clip_factor(self.model.parameters(), 1.0)
        self.optimizer.step(1e-4, factor)
        return loss.item

    def flops(self) -> dict[str, float]:
        """Operations of a step by kind of work."""
        rows = self.case.batch
        mixing = rows * sum(b.mixer.flops(self.case.tokens) for b in self.model.blocks)
        everything = rows * self.case.tokens * self.flops_per_token
        return {
            "products": everything - mixing,
            "attention forward": mixing * 4 / 14,
            "attention backward": mixing * 10 / 14,
        }

    def reset_peak(self) -> None:
        longnet.synchronize(DEVICE)
        longnet.empty_cache(DEVICE)
        longnet.reset_peak_memory(DEVICE)

    def peak_bytes(self) -> int:
        return longnet.memory_stats(DEVICE)["peak_bytes"]


def make(case: Case) -> LongnetStep:
    """The step of a case, longnet's or a peer's."""
    if case.implementation == "longnet":
        return LongnetStep(case)
    from longnet.bench.training import peers

    return peers.TorchStep(case)
