"""Metrics of detectors: how well scores tell what is to be found from what is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from longnet.errors import DataError


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Area under the receiver operating characteristic.

    The probability that a positive, drawn blindly, scores above a negative; a tie counts half. 0.5
    is chance, and no threshold is needed.

    Parameters
    ----------
    scores : array_like of float, (n,)
        Higher where the detector is surer; infinite scores are in order, NaN is refused.
    positive : array_like of bool, (n,)
        What is to be found.

    Raises
    ------
    DataError
        Shapes differ, a score is NaN, or all are positive or none is.
    """
    scores, positive = _checked("scores", np.asarray(scores, np.float64), positive)
    if np.isnan(scores).any():
        raise DataError(f"scores: found NaN at {int(np.isnan(scores).argmax())}, expected numbers")
    if positive.all() or not positive.any():
        raise DataError(
            f"positive: found {int(positive.sum())} of {positive.size}, expected some but not all"
        )
    negatives = np.sort(scores[~positive])
    below = np.searchsorted(negatives, scores[positive], "left")
    up_to = np.searchsorted(negatives, scores[positive], "right")
    return float((below + up_to).mean() / 2 / negatives.size)


def f1_score(found: ArrayLike, positive: ArrayLike) -> float:
    """Harmonic mean of precision and recall; 0 where nothing is found that is positive.

    Parameters
    ----------
    found : array_like of bool, (n,)
        What the detector reports.
    positive : array_like of bool, (n,)
        What is to be found.

    Raises
    ------
    DataError
        Shapes differ.
    """
    found, positive = _checked("found", np.asarray(found, bool), positive)
    hits = int((found & positive).sum())
    return 2 * hits / int(found.sum() + positive.sum()) if hits else 0.0


def _checked(name: str, values: np.ndarray, positive: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    positive = np.asarray(positive, bool)
    if values.ndim != 1 or values.shape != positive.shape:
        raise DataError(f"{name}: found shape {values.shape}, expected {positive.shape}, (n,)")
    return values, positive
