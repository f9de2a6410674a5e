"""Pictures of measurements have the lines, marks and ticks that were asked for."""

import numpy as np
import pytest

from longnet.bench.figures import draw

figure = pytest.importorskip("matplotlib.figure")
LINES = {"one": [(1, 2.0), (2, 3.0)], "other": [(1, 4.0), (2, 5.0)]}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws, and returns the axes of each panel."""
    figures = []
    save = figure.Figure.savefig

    def keep(self, *unnamed, **named):
        figures.append(self)
        save(self, *unnamed, **named)

    monkeypatch.setattr(figure.Figure, "savefig", keep)

    def call(panels, **options):
        path = tmp_path / "new" / "a.png"
        draw(path, panels, x="time", y="speed", **options)
        assert path.read_bytes().startswith(b"\x89PNG")
        return figures[-1].axes

    return call


def shown(axis):
    """Labels of the ticks within the view."""
    low, high = sorted(axis.get_view_interval())
    return [t.label1.get_text() for t in axis.get_major_ticks() if low <= t.get_loc() <= high]


def test_panels_lines_and_marks(drawn):
    marks = {"one": ["a", "b"], "other": ["c", ""]}
    first, second = drawn({"left": LINES, "right": {"one": [(1, 1)]} | LINES}, marks=marks)
    assert (first.get_title(), second.get_title()) == ("left", "right")
    assert (first.get_xlabel(), first.get_ylabel()) == ("time", "speed")
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["one", "other"]
    assert [text.get_text() for text in first.texts] == ["a", "b", "c", ""]
    for line, points in zip(first.get_lines(), LINES.values(), strict=False):
        np.testing.assert_array_equal(line.get_xydata(), points)


def test_ticks_over_decades_and_within_one(drawn):
    (axes,) = drawn({"": {"a": [(1, 0.04), (2, 5.3)]}}, log_y=True, ticks={1: "one", 2: "two"})
    assert shown(axes.xaxis) == ["one", "two"]
    assert shown(axes.yaxis) == ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"]
    (axes,) = drawn({"": {"a": [(1, 2.1), (2, 4.9)]}}, log_y=True)
    assert shown(axes.yaxis) == ["2.4", "3", "3.6", "4.2", "4.8"]


def test_bars_and_styles(drawn):
    errors = {"one": [0.5, 0.25], "other": [0.0, 1.0]}
    (axes,) = drawn(
        {"": LINES},
        errors=errors,
        bottom=0,
        style=lambda name, lines: {"color": "red" if name == "one" else "blue", "marker": "o"},
    )
    assert axes.get_ylim()[0] == 0
    one, other = axes.containers
    assert (one[0].get_color(), other[0].get_color()) == ("red", "blue")
    reach = [np.ptp(segment[:, 1]) / 2 for segment in one[2][0].get_segments()]
    assert reach == errors["one"]
