"""What a run is made of, by its settings."""

from __future__ import annotations

from collections.abc import Callable

from longnet.config import RunConfig, TrainConfig
from longnet.model import LongNet
from longnet.optim import AdamW
from longnet.schedules import make_schedule
from longnet.train.world import World


def make_model(config: RunConfig, world: World) -> LongNet:
    """The model, the same on every rank."""
    train = config.train
    return LongNet(config.model, seed=train.seed, dtype=train.dtype, device=world.device)


def make_optimizer(model: LongNet, train: TrainConfig, world: World) -> AdamW:
    """The optimizer of a model's parameters, a share of it on every rank."""
    return AdamW(
        model.parameters(),
        betas=train.betas,
        eps=train.eps,
        weight_decay=train.weight_decay,
        dtype=train.dtype,
        stochastic_rounding=train.stochastic_rounding,
        seed=train.seed,
        comm=world.comm,
    )


def learning_rates(train: TrainConfig) -> Callable[[int], float]:
    """The learning rate of each step."""
    return make_schedule(
        train.schedule,
        learning_rate=train.learning_rate,
        steps=train.steps,
        warmup_steps=train.warmup_steps,
        end_learning_rate=train.end_learning_rate,
        power=train.schedule_power,
        decay_fraction=train.decay_fraction,
    )
