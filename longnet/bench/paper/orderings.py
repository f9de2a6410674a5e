"""Whether orderings of perplexities are those of the paper, by one rule for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from longnet.bench.paper.results import Record, nats
from longnet.bench.paper.runs import TESTED

# Perplexities a token of The Stack, read in lengths of 2K, 8K and 32K: table 2.
PAPER = {
    "dense-2k": (4.24, 5.07, 11.29),
    "sparse-8k": (4.39, 3.35, 8.79),
    "longnet-8k": (4.23, 3.24, 3.36),
    "sparse-16k": (4.85, 3.73, 19.77),
    "longnet-16k": (4.27, 3.26, 3.31),
    "sparse-32k": (5.15, 4.00, 3.64),
    "longnet-32k": (4.37, 3.33, 3.01),
}
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Ordering:
    """One perplexity below another, as the paper has it or as it should be.

    Attributes
    ----------
    text : str
    group : str
        What it is counted with.
    nats, error : float
        Mean over the windows of the first's loss less the second's, and its standard error.
    """

    text: str
    group: str
    nats: float
    error: float

    @property
    def verdict(self) -> str:
        """``agrees`` or ``disagrees`` where the mean is more than two standard errors from 0."""
        if abs(self.nats) <= SURE * self.error:
            return "undecided"
        return "agrees" if self.nats < 0 else "disagrees"

    def line(self) -> str:
        """The ordering and the figures behind its verdict."""
        return f"{self.text}: {self.verdict} ({self.nats:+.4f} ± {self.error:.4f} nats)"


def ordering(text: str, group: str, lower: np.ndarray, higher: np.ndarray) -> Ordering:
    """Compare losses (W,) of the same windows."""
    difference = lower - higher
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    return Ordering(text, group, float(difference.mean()), float(error))


def of_paper(records: Mapping[str, Record]) -> Iterator[Ordering]:
    """Every two perplexities of a column of the paper's table, and every two of a row."""
    names = [name for name in PAPER if name in records]
    for column, k in enumerate(TESTED):
        for a, b in combinations(names, 2):
            low, high = sorted((a, b), key=lambda name: PAPER[name][column])
            text = f"{low} below {high} at {k}K"
            yield ordering(text, f"at {k}K", nats(records[low], k), nats(records[high], k))
    for name in names:
        for pair in combinations(range(len(TESTED)), 2):
            less, more = (TESTED[i] for i in sorted(pair, key=lambda i: PAPER[name][i]))
            text = f"{name} at {less}K below {more}K"
            first, second = nats(records[name], less), nats(records[name], more)
            yield ordering(text, "one run at two lengths", first, second)


def expected(records: Mapping[str, Record]) -> Iterator[Ordering]:
    """What must hold: LongNet below Sparse, and longer training below shorter, at 32K."""
    for low, high in (
        ("longnet-32k", "sparse-32k"),
        ("longnet-32k", "longnet-16k"),
        ("longnet-16k", "longnet-8k"),
    ):
        if low in records and high in records:
            text = f"{low} below {high} at 32K"
            yield ordering(text, "", nats(records[low], 32), nats(records[high], 32))


def summary(found: Sequence[Ordering]) -> list[list[str]]:
    """How many of each group agree, as lines of cells."""
    lines = [["orderings of the paper", "agree", "disagree", "undecided"]]
    for group in dict.fromkeys(o.group for o in found):
        verdicts = [o.verdict for o in found if o.group == group]
        counts = [verdicts.count(v) for v in ("agrees", "disagrees", "undecided")]
        lines.append([group, *map(str, counts)])
    return lines
