"""Pathfinder and Path-X: geometry as published, and an oracle that walks from dot to dot."""

import numpy as np
import pytest

from longnet import tasks
from longnet.tasks.contours import COS, SIN, Canvas, Dashes
from longnet.tasks.draw import Draw
from longnet.tasks.pathfinder import PICTURES, _draw_lines


def components(pixels):
    """Groups of neighbours among pixels, (n, 2) each."""
    left = set(map(tuple, pixels.tolist()))
    while left:
        group, front = [], [left.pop()]
        while front:
            y, x = front.pop()
            group.append((y, x))
            beside = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= beside
            front += beside
        yield np.array(group)


def dash_of(pixels, weights, length):
    """Ends of the dash that lit some pixels: along their main axis, about their mean."""
    centre = np.average(pixels + 0.5, axis=0, weights=weights)
    axis = np.linalg.eigh(np.cov((pixels + 0.5).T, aweights=weights))[1][:, 1]
    return centre - length / 2 * axis, centre + length / 2 * axis


def joined(task, example):
    """Whether dashes lead from dot to dot, each a contour's gap behind another."""
    p, margin = task.picture, example.meta["margin"]
    image = task.image(example).astype(float)
    dots = np.array(example.meta["dots"])
    for dot in dots:
        away = np.sqrt(((np.moveaxis(np.indices(image.shape), 0, -1) + 0.5 - dot) ** 2).sum(-1))
        image[away <= p.dot + 0.5] = 0
    groups = list(components(np.argwhere(image > 24)))  # what is fainter can touch others
    dashes = []
    for dot in dots:
        # What looks out of the dot of the dash that begins there is nearer than any other.
        nearest = min(groups, key=lambda group: ((group + 0.5 - dot) ** 2).sum(1).min())
        groups = [group for group in groups if group is not nearest]
        towards = np.average(nearest + 0.5, axis=0, weights=image[tuple(nearest.T)]) - dot
        dashes.append((dot, dot + p.dash * towards / np.sqrt((towards**2).sum())))
    dashes += [dash_of(g, image[tuple(g.T)], p.dash) for g in groups if len(g) > 3]
    ends = np.array(dashes)
    gaps = np.sqrt(((ends[:, None, :, None] - ends[None, :, None]) ** 2).sum(-1)).min((2, 3))
    near = gaps < 2 * margin + p.thickness / 2
    reached, front = np.zeros((2, len(ends)), bool)
    front[0] = True
    while front.any():
        reached |= front
        front = near[front].any(0) & ~reached
    return bool(reached[1])


@pytest.mark.parametrize(("name", "count"), [("pathx128", 25), ("pathx256", 20)])
def test_walking_along_the_dashes_solves_it(name, count):
    task = tasks.get(name)
    for index in range(count):
        example = task.make(6, index, task.minimum_length)
        assert task.score(example, [joined(task, example)]) == 1


@pytest.mark.parametrize("name", list(PICTURES))
def test_images(name):
    task = tasks.get(name)
    size = task.picture.size
    assert task.minimum_length == size * size == {"32": 1024, "28": 16384, "56": 65536}[name[-2:]]
    for index in range(4):
        example = task.make(0, index, task.minimum_length + 5)
        image = task.image(example)
        assert image.shape == (size, size)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image.ravel(), example.tokens)
        assert image.max() == 255
        assert np.median(image) == 0
        for y, x in example.meta["dots"]:
            assert image[min(int(y), size - 1), min(int(x), size - 1)] == 255


def test_published_parameters():
    small, path_x, large = PICTURES.values()
    assert (small.size, path_x.size, large.size) == (32, 128, 256)
    assert (small.distractors, path_x.distractors, large.distractors) == (5, 8, 7)
    assert path_x.margins == (2, 3)
    margins = {tasks.get("pathx128").make(0, i, 16384).meta["margin"] for i in range(10)}
    assert margins == {2, 3}


def test_labels_are_even_and_dots_tell_nothing():
    task = tasks.get("pathfinder32")
    examples = [task.make(0, i, 1024) for i in range(100)]
    labels = np.array([example.answers[0] for example in examples])
    assert 0.3 < labels.mean() < 0.7
    bright = np.array([example.tokens.sum() for example in examples])
    assert abs(bright[labels == 1].mean() / bright[labels == 0].mean() - 1) < 0.04
    assert 0.3 < np.mean([task.score(e, task.shortcut(e)) for e in examples]) < 0.7


@pytest.mark.parametrize("name", list(PICTURES))
def test_contours_keep_their_distance(name):
    p = PICTURES[name]
    dashes = Dashes(p.dash, p.thickness, p.margins[-1], p.continuity)
    canvas = Canvas(Draw(1, 2, 3), p.size, p.padding, dashes)
    contours = [*canvas.pair(14, p.seed_distance), *(canvas.alone(4) for _ in range(p.distractors))]
    contours = [contour for contour in contours if contour is not None]
    assert [len(contour) for contour in contours[:2]] == [14, 14]
    assert all(len(contour) == 4 for contour in contours[2:])
    start = np.subtract(contours[0].tails[0], contours[1].tails[0])
    assert np.hypot(*start) == pytest.approx(p.seed_distance)
    lines = []
    for contour in contours:
        tails, heads = np.array(contour.tails), np.array(contour.heads)
        assert min(tails.min(), heads.min()) >= p.padding
        assert max(tails.max(), heads.max()) <= p.size - p.padding
        np.testing.assert_allclose(np.hypot(*(heads - tails).T), p.dash, rtol=1e-5)
        gaps = np.hypot(*(tails[1:] - heads[:-1]).T)
        assert gaps.max() <= 2 * dashes.margin + 1e-5
        turns = (np.diff(contour.angles) + 180) % 360 - 180
        assert np.abs(turns).max() <= 90 / max(p.continuity, 1)
        share = np.linspace(0, 1, 9)[:, None, None]
        lines.append((tails + share * (heads - tails)).reshape(-1, 2))
    assert dashes.clearance == 2 * dashes.margin + dashes.thickness
    for i, one in enumerate(lines):
        for other in lines[:i]:
            assert np.sqrt(((one[:, None] - other) ** 2).sum(-1)).min() > dashes.clearance - 1e-3


def test_straight_contours_are_likelier_with_more_continuity():
    turns, likelihood = map(np.array, Dashes(5, 1.5, 2, 1.8).turns)
    assert np.abs(turns).max() < 50
    np.testing.assert_allclose(likelihood / 2**20, np.cos(np.radians(1.8 * turns)) ** 2, atol=1e-6)


def test_lines_are_drawn_as_far_as_they_reach():
    """Brightness by the distance of each pixel's centre, at the image's edge too."""
    pixels = np.zeros((12, 12), np.uint8)
    tails, heads = [(2.0, 3.0), (11.0, 8.0)], [(2.0, 7.0), (11.0, 12.0)]
    _draw_lines(pixels, tails, heads, 1.0, 0.9)
    y, x = np.indices(pixels.shape) + 0.5
    expected = np.zeros(pixels.shape)
    for (row, left), (_, right) in zip(tails, heads, strict=True):
        away = np.hypot(y - row, np.maximum(np.maximum(left - x, x - right), 0))
        expected = np.maximum(expected, 0.9 * np.clip(1.5 - away, 0, 1))
    np.testing.assert_allclose(pixels, expected * 255, atol=0.51)
    _draw_lines(pixels, [(0.0, 0.0)], [(0.0, 0.0)], 2.0, 1.0)
    assert pixels[0, 0] == 255
    assert pixels[1, 0] == round(255 * (2.5 - np.hypot(0.5, 1.5)))
    assert pixels[2, 0] == 0


def test_angles_do_not_depend_on_the_last_bit():
    """The tables are rounded far from where the last bits of a sine could turn them."""
    exact = np.sin(np.radians(np.arange(360.0))) * 2**20
    assert np.abs(np.abs(exact - np.floor(exact)) - 0.5).min() > 1e-5
    np.testing.assert_allclose(np.square(SIN) + np.square(COS), 1, atol=1e-5)
