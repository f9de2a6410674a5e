"""Pathfinder and Path-X: are two dots joined by a dashed contour? The image is a row of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from longnet.tasks.classification import ClassificationTask, ask_label
from longnet.tasks.contours import Canvas, Contour, Dashes, Point
from longnet.tasks.draw import Draw
from longnet.tasks.protocol import Example

_DASHES = 14  # of the two long contours, in the arena's hardest set
_DISTRACTOR_DASHES = _DASHES // 3


@dataclass(frozen=True)
class Picture:
    """Parameters of one size of image, those that the Long Range Arena states; lengths in pixels.

    Attributes
    ----------
    size, padding : int
        Side of the image, and of its empty border.
    seed_distance : int
        Between the first ends of the two contours.
    dash, thickness, margins
        Length and thickness of a dash, and half the gap between dashes (drawn for each image).
    continuity : float
        How straight contours are.
    distractors : int
        Short contours beside the long ones.
    contrast : float
        Of dashes; above 1 thin ones get full brightness.
    dot : float
        Radius of the dots.
    """

    size: int
    padding: int
    seed_distance: int
    dash: int
    thickness: float
    margins: tuple[int, ...]
    continuity: float
    distractors: int
    contrast: float
    dot: float


PICTURES = {
    "pathfinder32": Picture(32, 1, 7, 2, 0.5, (1,), 1.0, 20 // _DISTRACTOR_DASHES, 1.5, 1.5),
    "pathx128": Picture(128, 1, 20, 5, 1.5, (2, 3), 1.8, 35 // _DISTRACTOR_DASHES, 0.9, 3.0),
    "pathx256": Picture(256, 22, 27, 5, 2.0, (3,), 1.8, 30 // _DISTRACTOR_DASHES, 1.0, 5.0),
}


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Attributes
    ----------
    label, margin : int
    contours : list of Contour
        The two long ones first.
    marked : (int, int)
        Which of the two has a dot at its beginning, and which at its end.
    """

    label: int
    margin: int
    contours: list[Contour]
    marked: tuple[int, int]

    @property
    def dots(self) -> tuple[Point, Point]:
        """Where the dots lie."""
        first, last = self.marked
        return self.contours[first].tails[0], self.contours[last].heads[-1]

    @property
    def meta(self) -> dict[str, Any]:
        """What an example says of it."""
        return {"dots": self.dots, "margin": self.margin, "distractors": len(self.contours) - 2}

    def paint(self, picture: Picture, only: int | None = None) -> np.ndarray:
        """The image, (size, size) uint8; with `only`, that contour and its dots alone."""
        chosen = self.contours if only is None else [self.contours[only]]
        pairs = zip(self.dots, self.marked, strict=True)
        dots = [dot for dot, owner in pairs if only in (None, owner)]
        tails = [tail for contour in chosen for tail in contour.tails]
        heads = [head for contour in chosen for head in contour.heads]
        pixels = np.zeros((picture.size, picture.size), np.uint8)
        _draw_lines(pixels, tails, heads, picture.thickness / 2, picture.contrast)
        if dots:
            _draw_lines(pixels, dots, dots, picture.dot, 1.0)
        return pixels


class Pathfinder(ClassificationTask):
    """Do the two dots mark the ends of one contour (1) or ends of two (0)?

    Parameters
    ----------
    name : str
        One of `PICTURES`.
    dashes : int
        Of each of the two long contours, at least 3: 14, or fewer for an easier task of its own, as
        the arena's easier sets have 6 and 9. Short contours are a third as long, and as many more.
    """

    paper = "Linsley et al. 2018, arXiv 1805.08315; Tay et al. 2021, arXiv 2011.04006"
    classes = 2
    vocab_size = 256
    shortcut_name = "joined unless the dots lie further apart than a contour can reach"

    def __init__(self, name: str, dashes: int = _DASHES) -> None:
        self.name = name if dashes == _DASHES else f"{name}_{dashes}"
        self.picture, self._dashes = PICTURES[name], dashes
        self.minimum_length = self.picture.size**2

    def image(self, example: Example) -> np.ndarray:
        """The picture, (size, size) uint8."""
        return example.tokens.reshape(self.picture.size, self.picture.size).astype(np.uint8)

    def shortcut(self, example: Example) -> np.ndarray:
        """1 unless the dots lie further apart than a straight contour is long."""
        (y, x), (other_y, other_x) = example.meta["dots"]
        squared = (y - other_y) ** 2 + (x - other_x) ** 2
        reach = self._dashes * self.picture.dash + 2 * (self._dashes - 1) * max(
            self.picture.margins
        )
        return np.array([int(squared <= reach**2)])

    def decode(self, tokens: ArrayLike) -> str:
        """Brightness of each pixel."""
        return " ".join(map(str, self._checked(tokens).tolist()))

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        scene = self._scene(draw)
        return ask_label(scene.paint(self.picture).ravel(), scene.label, **scene.meta)

    def _scene(self, draw: Draw) -> Scene:
        p = self.picture
        label = draw.integer(0, 2)
        margin = draw.choice(p.margins)
        dashes = Dashes(p.dash, p.thickness, margin, p.continuity)
        canvas = Canvas(draw, p.size, p.padding, dashes)
        long = canvas.pair(self._dashes, p.seed_distance)
        each = self._dashes // 3
        count = p.distractors * _DISTRACTOR_DASHES // each
        short = [canvas.alone(each) for _ in range(count)]
        contours = [*long, *(contour for contour in short if contour is not None)]
        first = draw.integer(0, 2)
        last = first if label else 1 - first
        return Scene(label, margin, contours, (first, last))


def _draw_lines(
    pixels: np.ndarray,
    tails: Sequence[Point],
    heads: Sequence[Point],
    radius: float,
    contrast: float,
) -> None:
    """Draw lines of one length with round ends, discs if that is 0, into (size, size) uint8."""
    tail, head = np.array(tails)[:, :, None], np.array(heads)[:, :, None]  # (n, 2, 1)
    half = int(np.abs(head - tail).max() / 2 + radius) + 2
    cells = np.floor((tail + head) / 2) + np.arange(-half, half + 1)  # (n, 2, k) rows and columns
    away = cells + 0.5 - tail
    y, x = away[:, 0, :, None], away[:, 1, None, :]
    along_y, along_x = head[:, :1] - tail[:, :1], head[:, 1:] - tail[:, 1:]
    squared = along_y * along_y + along_x * along_x
    share = (y * along_y + x * along_x) / np.where(squared > 0, squared, 1)
    share = np.minimum(np.maximum(share, 0), 1)
    y, x = y - share * along_y, x - share * along_x
    cover = np.minimum(np.maximum(radius + 0.5 - np.sqrt(y * y + x * x), 0), 1)
    value = np.floor(np.minimum(cover * contrast, 1) * 255 + 0.5).astype(np.uint8)
    rows, columns = (
        np.broadcast_to(c, value.shape).astype(np.intp)
        for c in (cells[:, 0, :, None], cells[:, 1, None, :])
    )
    size = pixels.shape[0]
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    np.maximum.at(pixels, (rows[inside], columns[inside]), value[inside])
