"""Contexts longer than those a model with RoPE was trained on."""

import math
from typing import Any

from longnet.config import Config


def rotation(config: Config) -> dict[str, Any]:
    r"""Return what `longnet.functional.rotary` is told about frequencies.

    With s the `position_factor` and D the width of a head, `position_scaling` is

    "interpolation"
        Position interpolation (arXiv 2306.15595): all frequencies divided by s.
    "ntk"
        NTK-aware scaling: the base times :math:`s^{D / (D - 2)}`, so that the slowest pair is
        interpolated and the fastest left alone.
    "yarn"
        YaRN (arXiv 2309.00071): divided by s where a pair turns at most once in the
        `position_length` trained on, left alone where it turns 32 times or more, and mixed between;
        `temperature` belongs to it.
    """
    base, factor, length = config.position_base, 1.0, 0
    if config.position_scaling == "ntk":
        base *= config.position_factor ** (config.head_dim / (config.head_dim - 2))
    elif config.position_scaling != "none":
        factor, length = config.position_factor, config.position_length or 0
    return {"base": base, "factor": factor, "length": length}


def temperature(config: Config) -> float:
    r"""Return the factor of scores: with YaRN :math:`(0.1 \ln s + 1)^2`, else 1."""
    if config.position_scaling != "yarn":
        return 1.0
    return (0.1 * math.log(config.position_factor) + 1.0) ** 2
