"""Dashed contours that keep clear of each other.

Float64 by additions, products and comparisons alone, each of which IEEE 754 rounds in one way: the
same draws give the same contours on any machine.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np

from longnet.tasks.draw import Draw

Point = tuple[float, float]  # (y, x)

# Sines and cosines of whole degrees, rounded so that no library's last bit shows.
_UNIT = 1 << 20
SIN = [round(_UNIT * math.sin(math.radians(a))) / _UNIT for a in range(360)]
COS = [round(_UNIT * math.cos(math.radians(a))) / _UNIT for a in range(360)]
_SINES, _COSINES = np.array(SIN), np.array(COS)
_TURN_STEP = 3  # degrees between the turns a contour can take
_BEGINNINGS = 32  # first dashes tried at a time
_BLIND_TURNS = 3  # turns tried before all are looked at
_TRIALS = 4  # times that a contour alone is begun before it is left out
_RETREAT = 4  # dashes that a contour gives up when it is stuck
_PATIENCE = 40  # such retreats before a pair of contours is begun again


@dataclass(frozen=True)
class Dashes:
    """Geometry, in pixels.

    Attributes
    ----------
    length, thickness : float
        Of a dash.
    margin : float
        Half the gap between a contour's dashes; other contours keep at least as far away.
    continuity : float
        A contour turns by an angle a with a likelihood of ``cos(continuity * a)^2``, up to where
        that is 0 and at most by 90 degrees.
    """

    length: float
    thickness: float
    margin: float
    continuity: float

    @property
    def cells(self) -> int:
        """Cells a pixel, along each axis, of the grid on which clearance is kept."""
        return 1 if self.length >= 4 else 2

    @property
    def clearance(self) -> float:
        """Least distance between the middle lines of dashes that are no neighbours."""
        return 2 * self.margin + self.thickness

    @cached_property
    def turns(self) -> tuple[list[int], list[int]]:
        """Turns in degrees, and their likelihoods as integers."""
        turns = range(-90, 91, _TURN_STEP)
        bends = (math.radians(min(abs(turn) * self.continuity, 90)) for turn in turns)
        likelihoods = [round(_UNIT * math.cos(bend) ** 2) for bend in bends]
        kept = [pair for pair in zip(turns, likelihoods, strict=True) if pair[1]]
        return [turn for turn, _ in kept], [likelihood for _, likelihood in kept]


@dataclass
class Contour:
    """Dashes one after the other.

    Attributes
    ----------
    tails, heads : list of (float, float)
        Ends of each dash, in pixels; the first tail and the last head are the contour's.
    angles : list of int
        Direction of each dash, degrees.
    """

    tails: list[Point] = field(default_factory=list)
    heads: list[Point] = field(default_factory=list)
    angles: list[int] = field(default_factory=list)
    _kept: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tails)


class Canvas:
    """A square on which contours grow.

    Parameters
    ----------
    draw : Draw
        All that is random.
    size : int
        Pixels of a side.
    padding : int
        Pixels along the border that stay empty.
    dashes : Dashes
        What contours are made of.
    """

    def __init__(self, draw: Draw, size: int, padding: int, dashes: Dashes) -> None:
        self._draw, self._size, self._dashes = draw, size, dashes
        cells = dashes.cells
        points = int(dashes.length * cells) + 1
        self._along = [i / (points - 1) * dashes.length * cells for i in range(points)]
        self._sums = list(accumulate(dashes.turns[1]))
        # What the cells can hide of a distance is less than 3/4 of their side.
        self._reach = dashes.clearance * cells + 0.75
        half = math.ceil(dashes.length * cells / 2 + self._reach) + 1
        self._window = np.arange(2 * half + 1) + 0.5
        # How many dashes keep each cell free of others; what lies outside is taken for ever.
        self._outside = 2 * half + 2
        inside = np.zeros((size * cells - 2 * padding * cells,) * 2, np.int16)
        border = padding * cells + self._outside
        self._taken = np.pad(inside, border, constant_values=1)
        self._view = self._taken.data  # for single cells: faster than the array's own indexing

    def pair(self, count: int, distance: float) -> tuple[Contour, Contour]:
        """Two contours of `count` dashes that begin at `distance` and grow side by side.

        The first begins at least twice as far from the image's edges. A contour that is stuck gives
        up its last few dashes.
        """
        while True:
            room = self._size - 4 * distance
            y, x = (2 * distance + self._draw.uniform() * room for _ in range(2))
            angle = self._draw.integer(0, 360)
            first, second = Contour(), Contour()
            other = y + distance * SIN[angle], x + distance * COS[angle]
            if self._begin(first, (y, x)) and self._begin(second, other):
                retreats = 0
                while min(len(first), len(second)) < count and retreats < _PATIENCE:
                    contour = first if len(first) <= len(second) else second
                    if not self._extend(contour):
                        self._undo(contour, min(_RETREAT, len(contour) - 1))
                        retreats += 1
                if retreats < _PATIENCE:
                    return first, second
            for contour in (first, second):
                self._undo(contour, len(contour))

    def alone(self, count: int) -> Contour | None:
        """A contour of `count` dashes that begins anywhere; None where it finds no room."""
        for _ in range(_TRIALS):
            contour = Contour()
            if self._begin(contour):
                while len(contour) < count and self._extend(contour):
                    pass
                if len(contour) == count:
                    return contour
            self._undo(contour, len(contour))
        return None

    def _begin(self, contour: Contour, tail: Point | None = None) -> bool:
        """Add a first dash in any direction, from `tail` or anywhere; False without room."""
        for _ in range(_BEGINNINGS):
            angle = self._draw.integer(0, 360)
            y, x = tail or (self._draw.uniform() * self._size, self._draw.uniform() * self._size)
            if self._is_free(y, x, angle):
                self._add(contour, y, x, angle)
                return True
        return False

    def _extend(self, contour: Contour) -> bool:
        """Add a dash behind the last one; False without room."""
        last, (y, x), margin = contour.angles[-1], contour.heads[-1], self._dashes.margin
        y, x = y + margin * SIN[last], x + margin * COS[last]
        window, near = contour._kept[-1]
        window -= near  # the dash before may stand nearer than others
        turn = self._turn(y, x, last)
        window += near
        if turn is None:
            return False
        angle = (last + turn) % 360
        self._add(contour, y + margin * SIN[angle], x + margin * COS[angle], angle)
        return True

    def _turn(self, y: float, x: float, last: int) -> int | None:
        """A turn by which a dash about the gap's middle is free, by likelihood; None without."""
        turns, likelihoods = self._dashes.turns
        margin = self._dashes.margin
        for _ in range(_BLIND_TURNS):
            turn = turns[bisect_right(self._sums, self._draw.integer(0, self._sums[-1]))]
            angle = (last + turn) % 360
            if self._is_free(y + margin * SIN[angle], x + margin * COS[angle], angle):
                return turn
        # The same choice, among what is left of all turns.
        angles = (last + np.array(turns)) % 360
        cells = self._dashes.cells
        along = np.array(self._along) + margin * cells
        rows = y * cells + self._outside + along * _SINES[angles][:, None]
        columns = x * cells + self._outside + along * _COSINES[angles][:, None]
        taken = self._taken[rows.astype(np.intp), columns.astype(np.intp)].any(axis=1)
        sums = np.cumsum(np.where(taken, 0, likelihoods)).tolist()
        return turns[bisect_right(sums, self._draw.integer(0, sums[-1]))] if sums[-1] else None

    def _add(self, contour: Contour, y: float, x: float, angle: int) -> None:
        length, cells = self._dashes.length, self._dashes.cells
        sine, cosine = SIN[angle], COS[angle]
        contour.tails.append((y, x))
        contour.heads.append((y + length * sine, x + length * cosine))
        contour.angles.append(angle)
        # Cells within reach of the middle line, in a window about its middle.
        half = self._window.size // 2
        top = int((y + length / 2 * sine) * cells) + self._outside - half
        left = int((x + length / 2 * cosine) * cells) + self._outside - half
        away_y = (self._window + (top - self._outside - y * cells))[:, None]
        away_x = self._window + (left - self._outside - x * cells)
        along = away_y * sine + away_x * cosine
        np.minimum(along, length * cells, out=along)
        np.maximum(along, 0, out=along)
        away_y, away_x = away_y - along * sine, away_x - along * cosine
        near = (away_y * away_y + away_x * away_x < self._reach * self._reach).astype(np.int16)
        side = self._window.size
        window = self._taken[top : top + side, left : left + side]
        window += near
        contour._kept.append((window, near))

    def _undo(self, contour: Contour, count: int) -> None:
        """Take the last `count` dashes away."""
        for _ in range(count):
            for ends in (contour.tails, contour.heads, contour.angles):
                ends.pop()
            window, near = contour._kept.pop()
            window -= near

    def _is_free(self, y: float, x: float, angle: int) -> bool:
        """Whether a dash from (y, x) would keep clear of all others."""
        view, cells = self._view, self._dashes.cells
        y, x = y * cells + self._outside, x * cells + self._outside
        sine, cosine = SIN[angle], COS[angle]
        return not any(view[int(y + a * sine), int(x + a * cosine)] for a in self._along)
