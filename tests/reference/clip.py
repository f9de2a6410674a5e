"""What makes the norm of a gradient at most max_norm."""

import math


def clip(squares: float, max_norm: float, divisor: float) -> tuple[float, float]:
    """The factor and the norm."""
    norm = math.sqrt(squares) / divisor
    if not math.isfinite(norm):
        return math.nan, norm
    return (max_norm / norm if norm > max_norm else 1.0) / divisor, norm
