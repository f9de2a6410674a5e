"""Learning-rate schedules by name.

Every schedule warms up linearly: update k of the first W (k = 1, 2, ..., W) takes k / W of the full
rate. What follows is ``end + (full - end) * f`` with the schedule's own factor f.
"""

import math
from collections.abc import Callable

from longnet.errors import ConfigError

# step (from the end of the warm-up on), warm-up steps, total steps, power, decay fraction -> f
_Factor = Callable[[int, int, int, float, float], float]


def _progress(step: int, start: int, end: int) -> float:
    """Return how far `step` has come from `start` (0) to `end` (1); 1 beyond the end."""
    return 1.0 if step >= end else (step - start) / (end - start)


def _polynomial(step: int, warmup: int, steps: int, power: float, fraction: float) -> float:
    return (1.0 - _progress(step, warmup, steps)) ** power


def _cosine(step: int, warmup: int, steps: int, power: float, fraction: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * _progress(step, warmup, steps)))


def _constant(step: int, warmup: int, steps: int, power: float, fraction: float) -> float:
    return 1.0


def _inverse_sqrt(step: int, warmup: int, steps: int, power: float, fraction: float) -> float:
    return math.sqrt(max(warmup, 1) / (step + 1))


def _wsd(step: int, warmup: int, steps: int, power: float, fraction: float) -> float:
    start = max(warmup, steps - max(1, round(fraction * steps)))
    return 1.0 if step < start else 1.0 - _progress(step, start, steps)


_SCHEDULES: dict[str, _Factor] = {
    "polynomial": _polynomial,
    "cosine": _cosine,
    "constant": _constant,
    "inverse_sqrt": _inverse_sqrt,
    "wsd": _wsd,
}


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    end_learning_rate: float = 0.0,
    power: float = 1.0,
    decay_fraction: float = 0.2,
) -> Callable[[int], float]:
    """Return the function that gives each update its learning rate.

    Parameters
    ----------
    name : str
        What follows the warm-up: ``polynomial`` decay (the paper's), ``cosine`` decay,
        ``constant``, ``inverse_sqrt`` (``sqrt(W / (step + 1))``), or ``wsd`` (stable, then linear
        decay).
    learning_rate : float
        The full rate.
    steps : int
        Updates in the whole run; decays end there.
    warmup_steps : int
        W.
    end_learning_rate : float
        What the rate decays towards.
    power : float
        Exponent of the polynomial decay; 1 is linear.
    decay_fraction : float
        Part of `steps` that the decay of ``wsd`` takes.

    Returns
    -------
    callable
        Maps the number of updates already made (0 for the first) to the next update's rate. It
        has no state: a resumed run gets the rates of an unbroken one.

    Raises
    ------
    ConfigError
        The name is unknown (the message lists those known) or a number is outside its range; the
        function returned raises it for a negative step.
    """
    factor = _SCHEDULES.get(name)
    if factor is None:
        raise ConfigError(f"schedule: found {name!r}, expected one of {', '.join(_SCHEDULES)}")
    _require("learning_rate", learning_rate, learning_rate > 0, "a value above 0")
    _require("steps", steps, steps >= 1, "at least 1")
    _require("warmup_steps", warmup_steps, 0 <= warmup_steps <= steps, f"0 to steps = {steps}")
    within = f"0 to learning_rate = {learning_rate}"
    _require(
        "end_learning_rate", end_learning_rate, 0 <= end_learning_rate <= learning_rate, within
    )
    _require("power", power, power > 0, "a value above 0")
    _require("decay_fraction", decay_fraction, 0 < decay_fraction <= 1, "a fraction in (0, 1]")

    def schedule(step: int) -> float:
        _require("step", step, step >= 0, "at least 0")
        if step < warmup_steps:
            return learning_rate * (step + 1) / warmup_steps
        part = factor(step, warmup_steps, steps, power, decay_fraction)
        return end_learning_rate + (learning_rate - end_learning_rate) * part

    return schedule


def _require(name: str, value: float, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}: found {value}, expected {expected}")
