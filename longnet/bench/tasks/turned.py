"""Pathfinder as it is taught: each image several times, turned, and its pixels asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from longnet.tasks import IGNORE, Example
from longnet.tasks.classification import ask_label
from longnet.tasks.draw import Draw
from longnet.tasks.pathfinder import Pathfinder, Scene

_LIT = 64  # brightness from which a pixel belongs to a line


class TurnedPathfinder(Pathfinder):
    """Examples of Pathfinder, as many in succession of one image.

    Each is the image turned or mirrored in another of its eight ways. Where `dashes` are given, not
    the label alone is asked for: of each lit pixel behind the dot that comes first in reading order
    it is asked whether the pixel belongs to that dot's contour (1) or not (0). At the pixels of the
    other dot that is the question of Pathfinder.

    Parameters
    ----------
    name : str
        Of the task.
    dashes : int or None
        Of a contour; None: the task's own, and the label alone is asked for.
    turned : int
        Examples of one image, 1 to 8.
    """

    def __init__(self, name: str, dashes: int | None, turned: int) -> None:
        super().__init__(name, *(() if dashes is None else (dashes,)))
        self._traced, self._turned = dashes is not None, turned
        self._last: tuple[tuple[int, int], Scene] | None = None

    def make(self, seed: int, index: int, length: int, *, depth: float | None = None) -> Example:
        """Example number `index` of a seed, as `Task.make`."""
        which, use = divmod(index, self._turned)
        if self._last is None or self._last[0] != (seed, which):
            self._last = (seed, which), self._scene(Draw(self._key, seed, which))
        scene = self._last[1]
        layers = _layers(scene, self)
        symmetry = (which + 3 * use) % 8  # no two alike for one image
        if symmetry >= 4:
            layers = layers.transpose(0, 2, 1)
        pixels, *owned, dots = np.rot90(layers, symmetry % 4, axes=(1, 2)).reshape(4, -1)
        example = ask_label(pixels, scene.label, margin=scene.margin)
        return replace(example, targets=_asked(pixels, owned, dots)) if self._traced else example


def _layers(scene: Scene, task: Pathfinder) -> np.ndarray:
    """The image, each dot's contour alone, and 1 and 2 where the dots lie: (4, size, size)."""
    owned = [scene.paint(task.picture, owner) for owner in scene.marked]
    places = np.zeros_like(owned[0])
    for number, (y, x) in enumerate(scene.dots, start=1):
        places[int(y), int(x)] = number
    return np.stack([scene.paint(task.picture), *owned, places])


def _asked(pixels: np.ndarray, owned: list[np.ndarray], dots: np.ndarray) -> np.ndarray:
    """The targets of flat layers."""
    places = [int(np.flatnonzero(dots == number)[0]) for number in (1, 2)]
    first, last = np.argsort(places)
    belongs = owned[first] == pixels
    asked = pixels >= _LIT
    asked[: places[first] + 1] = False
    targets = np.where(asked, belongs, IGNORE).astype(np.int32)
    targets[-1] = belongs[places[last]]
    return targets
