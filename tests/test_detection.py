"""Metrics of detectors beside values computed by hand."""

import numpy as np
import pytest

from longnet.errors import DataError
from longnet.evaluate.detection import auroc, f1_score


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0),
        ([1, 2, 3, 4], [0, 1, 0, 1], 3 / 4),  # of four pairs one is the wrong way round
        ([5, 5, 5], [0, 1, 1], 1 / 2),
        ([1, 2, 2, 3], [0, 0, 1, 0], (1 + 1 / 2) / 3),
        ([-np.inf, 0, np.inf], [0, 0, 1], 1),
    ],
)
def test_auroc(scores, positive, expected):
    assert auroc(scores, positive) == pytest.approx(expected)


def test_auroc_is_the_share_of_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(9, size=300), rng.random(300) < 0.3
    above = scores[positive][:, None] - scores[~positive]
    assert auroc(scores, positive) == pytest.approx((np.sign(above) + 1).mean() / 2)


@pytest.mark.parametrize(
    ("found", "positive", "expected"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1),
        ([1, 1, 1, 0], [1, 0, 0, 1], 2 / 5),  # precision 1/3, recall 1/2
        ([0, 0], [1, 0], 0),
        ([1, 0], [0, 0], 0),
        ([0], [0], 0),
    ],
)
def test_f1_score(found, positive, expected):
    assert f1_score(found, positive) == pytest.approx(expected)


def test_what_is_refused():
    with pytest.raises(DataError, match=r"scores: found shape \(2,\), expected \(3,\)"):
        auroc([1, 2], [0, 1, 1])
    with pytest.raises(DataError, match=r"found: found shape \(1, 2\)"):
        f1_score([[1, 0]], [[1, 0]])
    with pytest.raises(DataError, match="scores: found NaN at 1"):
        auroc([0, np.nan], [0, 1])
    with pytest.raises(DataError, match="positive: found 2 of 2, expected some but not all"):
        auroc([0, 1], [1, 1])
