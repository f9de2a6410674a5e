"""Sums and maxima over ranks on the host, in the order of ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from longnet._core import Tensor, ops


def reduce(out: NDArray[Any], parts: NDArray[Any], op: str) -> None:
    """Write to `out` the sum ('sum') or the largest ('max') of `parts` (size, \\*out.shape).

    Sums of float16 and bfloat16 are kept in float32 until the last. NaN is the largest of all.
    """
    if op == "sum" and out.dtype.name in ("float16", "bfloat16"):
        total, term = (Tensor.empty(out.shape) for _ in range(2))
        ops.cast(total, parts[0])
        for part in parts[1:]:
            ops.cast(term, part)
            ops.add(total, total, term, 1.0)
        ops.cast(out, total)
    else:
        combine = np.add if op == "sum" else np.maximum
        out[...] = parts[0]
        with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN pass, as elsewhere
            for part in parts[1:]:
                combine(out, part, out=out)
