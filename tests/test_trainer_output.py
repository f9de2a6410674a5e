"""What a run writes beside its checkpoints: metrics, progress, the loss curve, the time."""

import io
import json

import pytest

from longnet.errors import ConfigError, LongNetError
from longnet.train import plot_loss, progress, read_metrics
from longnet.train.clock import Clock
from longnet.train.metrics import MetricsFile
from longnet.train.progress import Progress


def write(path, steps, start=0):
    with MetricsFile(path, start) as metrics:
        for step in steps:
            metrics.write({"step": step, "loss": step / 2})


def test_records_come_back(tmp_path):
    path = tmp_path / "m"
    write(path, [1, 2, 3])
    assert read_metrics(path) == [{"step": n, "loss": n / 2} for n in (1, 2, 3)]


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize("tail", [b"", b'{"step": 6, "lo', b'{"step": 6}', b"\xff\n", b"[]\n"])
def test_steps_after_the_checkpoint_and_broken_lines_are_cut_off(tmp_path, start, tail):
    path = tmp_path / "m"
    write(path, [1, 2, 3, 4, 5])
    with path.open("ab") as file:
        file.write(tail)
    write(path, range(start + 1, 9), start)
    assert [r["step"] for r in read_metrics(path)] == list(range(1, 9))
    assert len(path.read_bytes().splitlines()) == 8


def test_an_unfinished_line_is_no_record(tmp_path):
    path = tmp_path / "m"
    write(path, [1, 2])
    path.write_bytes(path.read_bytes()[:-3])
    assert [r["step"] for r in read_metrics(path)] == [1]


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "m"
    with MetricsFile(path, 0) as metrics:
        metrics.write({"step": 1})
        with pytest.raises(ConfigError, match="found another run writing it, expected none"):
            MetricsFile(path, 0)
        metrics.write({"step": 2})
        metrics.sync()
    assert [r["step"] for r in read_metrics(path)] == [1, 2]
    write(path, [3], 2)
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 3]


def test_nan_is_not_written(tmp_path):
    """JSON has no NaN."""
    with MetricsFile(tmp_path / "m", 0) as metrics, pytest.raises(ValueError, match="JSON"):
        metrics.write({"step": 1, "loss": float("nan")})


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(LongNetError, match="cannot be read: No such file"):
        read_metrics(tmp_path / "m")
    with pytest.raises(LongNetError, match="cannot be written: Is a directory"):
        MetricsFile(tmp_path, 0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


RECORD = {"loss": 1.2345, "tokens_per_second": 98765.4, "peak_memory_bytes": 10_000}


def test_what_a_gpu_adds(capsys):
    with Progress(0, 1) as bar:
        bar.update(RECORD | {"step": 1, "utilization": 0.4123, "peak_memory_bytes": 5.52e9})
    assert "98,765 tokens/s, 41.2% of peak, 5.5 GB, " in capsys.readouterr().err


def show(steps):
    with Progress(10, 20) as bar:
        for step in steps:
            bar.update(RECORD | {"step": step})
        bar.note("a note")


def test_lines_where_there_is_no_terminal(capsys, monkeypatch):
    seconds = iter(range(0, 10_000, 100))
    monkeypatch.setattr(progress, "monotonic", lambda: next(seconds))
    show([11, 12, 20])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 11/20, loss 1.234, 98,765 tokens/s, 15:00 left",
        "step 12/20, loss 1.234, 98,765 tokens/s, 13:20 left",
        "step 20/20, loss 1.234, 98,765 tokens/s, 0:00 left",
        "a note",
    ]


def test_lines_come_every_few_seconds(capsys):
    show(range(11, 21))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # the last step, the note


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    show([11, 15, 20])
    text = terminal.getvalue()
    assert "20/20 100%" in text
    assert "loss 1.234, 98,765 tokens/s" in text
    assert "left" in text
    assert "a note\n" in text


def test_a_terminal_that_went_away_ends_no_run(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    show([11, 20])


@pytest.mark.parametrize("seconds", [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_time_for_people(seconds):
    assert progress._clock(seconds[0]) == seconds[1]


RECORDS = [
    {"step": n, "loss": 3 / n, "bits_per_byte": 4 / n, "validation_bits_per_byte": 5 / n}
    for n in range(1, 9)
]


@pytest.mark.parametrize(
    "records", [RECORDS, [{"step": 1, "loss": 2.0}], [], [{"step": 1, "validation_loss": 1.0}]]
)
def test_the_curve_is_a_png(tmp_path, records):
    path = tmp_path / "loss.png"
    for _ in range(2):
        plot_loss(records, path, {"bigram": 3.5})
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["loss.png"]


def test_the_curve_takes_what_metrics_give(tmp_path):
    (tmp_path / "m").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    plot_loss(read_metrics(tmp_path / "m"), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_the_clock_adds_up():
    clock = Clock()
    for part in ("forward", "backward", "forward"):
        with clock(part):
            pass
    with pytest.raises(ZeroDivisionError), clock("update"):
        1 / 0  # noqa: B018
    assert list(clock.seconds) == ["forward", "backward", "update"]
    clock.seconds = {"forward": 1.26, "backward": 2.0}
    assert clock.summary() == "3.3 s: forward 1.3, backward 2.0"
