"""Training: the loop, its record, its checkpoints, and what a person sees of it."""

from longnet.train.memory import MemoryEstimate, estimate_memory
from longnet.train.metrics import read_metrics
from longnet.train.plot import plot_loss
from longnet.train.record import LOSS_CURVE, METRICS
from longnet.train.state import read_checkpoint, saved_config
from longnet.train.trainer import Outcome, Trainer

__all__ = [
    "LOSS_CURVE",
    "METRICS",
    "MemoryEstimate",
    "Outcome",
    "Trainer",
    "estimate_memory",
    "plot_loss",
    "read_checkpoint",
    "read_metrics",
    "saved_config",
]
