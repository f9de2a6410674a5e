"""AdamW, on one device or on many ranks, and the clipping of all gradients together."""

from longnet.optim.adamw import AdamW
from longnet.optim.clip import clip_factor

__all__ = ["AdamW", "clip_factor"]
