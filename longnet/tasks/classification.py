"""Tasks that ask for the class of a whole sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from longnet.tasks.draw import Draw
from longnet.tasks.protocol import IGNORE, Example, Task


class ClassificationTask(Task):
    """A task of `classes` labels; the one target, after the last token, is the label."""

    classes: int

    @property
    def chance(self) -> float:  # type: ignore[override]
        """One of the classes."""
        return 1 / self.classes

    def blind(self, example: Example, draw: Draw) -> np.ndarray:
        """Any label."""
        return draw.integers(0, self.classes, 1)


def ask_label(tokens: np.ndarray, label: int, **meta: Any) -> Example:
    """The example that asks for the label of (n,) tokens; `meta` goes into it."""
    targets = np.full(tokens.size, IGNORE, np.int32)
    targets[-1] = label
    return Example(
        tokens=tokens.astype(np.int32),
        targets=targets,
        answers=(label,),
        spans=((tokens.size - 1, tokens.size),),
        evidence=(-1,),
        meta=meta,
    )
