"""The table of the GPU's measurement: what is measured, what a row counts, what must hold of it."""

import dataclasses
import json

import pytest

longnet = pytest.importorskip("longnet")

from longnet.bench.gpu_attention.requirements import requirements  # noqa: E402
from longnet.bench.gpu_attention.shapes import GROUPS, Entry, Shape  # noqa: E402
from longnet.bench.gpu_attention.table import Row, Step, table  # noqa: E402

ENTRIES = [(group, entry) for group, runs in GROUPS.items() for run in runs for entry in run]


def row(group, entry, **steps):
    """A made-up line: milliseconds of steps, or errors."""
    made = {
        name: Step.failed(x) if isinstance(x, Exception) else Step(ms=x, extra_bytes=0, extra=0.0)
        for name, x in steps.items()
    }
    found = Row(group, entry, entry.shape.pairs(), made)
    found.count()
    return found


def every_row(ms=1.0):
    return [row(group, entry, **dict.fromkeys(entry.steps, ms)) for group, entry in ENTRIES]


def test_dense_shapes_have_as_many_rows_and_all_pairs():
    shape = Shape(1, 131_072, 12, 64, (2048, 4096), (1, 2)).dense(2048)
    assert (shape.batch, shape.tokens) == (64, 2048)
    assert shape.pairs() == 64 * 12 * 2048 * 2049 // 2


def test_entries_fill_a_gpu_and_their_names_differ():
    for _, entry in ENTRIES:
        assert entry.shape.batch * entry.shape.tokens >= 131_072
    assert len({(group, entry.name) for group, entry in ENTRIES}) == len(ENTRIES)


def test_a_row_counts_pairs():
    shape = Shape(2, 64, 3, 16, (32,), (2,))
    made = row("paper", Entry("longnet", "longnet", shape), forward=2.0, backward=4.0)
    pairs = 2 * 3 * 2 * 16 * 17 // 2
    assert made.pairs == pairs
    assert made.steps["forward"].tflops == pytest.approx(4 * 16 * pairs / 2e-3 / 1e12)
    assert made.steps["backward"].tflops == pytest.approx(10 * 16 * pairs / 4e-3 / 1e12)
    assert made.steps["forward"].ns == pytest.approx(2e6 / (2 * 64 * 3))
    record = json.loads(json.dumps(made.record()))
    assert record["segment_lengths"] == [32]
    assert record["steps"]["backward"]["ms"] == 4.0


def test_requirements_are_ratios_of_rows():
    rows = {(r.group, r.entry.name): r for r in every_row()}
    for key, step, change in (
        (("paper", "longnet"), "forward", {"tflops": 300.0, "ms": 2.0, "extra": 0.04}),
        (("paper", "cuDNN, L 2048"), "forward", {"tflops": 400.0}),
        (("paper", "torchscale"), "forward", {"ms": 12.0}),
        (("rates", "D 128, r 16"), "backward", {"tflops": 95.0}),
        (("rates", "D 128, r 1"), "backward", {"tflops": 100.0}),
        (("lengths", "4M"), "forward", {"ns": 1.06}),
        (("lengths", "64K"), "forward", {"ns": 1.0}),
        (("lengths", "1M"), "backward", {"extra_bytes": 3 * 4 * 32768 * 12 * 64 // 2}),
    ):
        rows[key].steps[step] = dataclasses.replace(rows[key].steps[step], **change)
    found = {x.name: x for x in requirements(list(rows.values()))}
    for name, figure, holds in (
        ("paper: forward TFLOP/s over dense cuDNN's at L 2048", 0.75, False),
        ("paper: forward, times faster than torchscale with cuDNN", 6.0, True),
        ("paper: forward memory over that of inputs and outputs", 0.04, True),
        ("one level, D 128: backward TFLOP/s at r 16 over r 1", 0.95, True),
        ("forward time a token at 4M tokens over 64K", 1.06, False),
        ("1M tokens: backward memory over float32 dq, dk, dv of a segment", 0.5, True),
    ):
        assert found[name].figure == pytest.approx(figure)
        assert found[name].holds() is holds
    assert all(x.figure is not None for x in found.values())


def test_what_was_not_measured_is_said_so():
    rows = [r for r in every_row() if r.group == "paper"]
    rows[0].steps["backward"] = Step.failed(RuntimeError("no kernel\nmore of it"))
    found = requirements(rows)
    assert {x.holds() for x in found if not x.name.startswith("paper")} == {None}
    by_name = {x.name: x for x in found}
    assert by_name["paper: backward TFLOP/s over dense cuDNN's at L 2048"].figure is None
    assert by_name["paper: forward TFLOP/s over dense cuDNN's at L 2048"].figure is not None
    text = table(rows, found)
    assert "paper, longnet, backward: RuntimeError: no kernel\n" in text
    assert "not measured" in text


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


@pytest.mark.parametrize(
    ("error", "cell"),
    [
        (OutOfMemoryError("CUDA out of memory"), "memory"),
        (longnet.OutOfMemoryError("asked 5"), "memory"),
        (ModuleNotFoundError("No module named 'torchscale'"), "absent"),
        (ValueError(), "error"),
    ],
)
def test_errors_become_cells(error, cell):
    assert Step.failed(error).cells() == [cell, "", ""]


def test_the_table_has_a_line_a_row_below_its_group():
    rows = every_row()
    lines = table(rows, requirements(rows)).splitlines()
    assert lines[0].split()[:4] == ["B", "x", "N", "H"]
    assert sum(line.endswith("falls short") or line.endswith("holds") for line in lines) == len(
        requirements(rows)
    )
    for group, entry in ENTRIES:
        assert sum(line.startswith(f"{entry.name}  ") for line in lines) >= 1
        assert any(line.startswith(group) for line in lines)
    assert lines.index("rates") < next(i for i, x in enumerate(lines) if x.startswith("D 64, r 1"))
