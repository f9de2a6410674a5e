"""Saves that do not end: killed at any moment, interrupted, no space, no permission."""

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from longnet.checkpoint import latest, load, load_latest, save, writer
from longnet.errors import CheckpointError

# Enough that a save takes some milliseconds, a few hundred kilobytes an array.
ELEMENTS = 200_000


def arrays_of(step):
    weights = {str(i): np.full(ELEMENTS, step + i, np.float32) for i in range(3)}
    return {"model": weights, "optimizer": weights}


def assert_holds(checkpoint, step):
    assert checkpoint.step == step
    for group, named in arrays_of(step).items():
        for name, array in named.items():
            assert np.array_equal(checkpoint.arrays[group][name], array)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_at_event(folder, step, number):
    """Save in a child that kills itself at its `number`-th file operation; say if it ended."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(event, arguments):
            nonlocal seen
            if event == "open" or event.startswith(("os.", "shutil.", "fcntl.")):
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            save(folder, step, {"model": {"w": np.full(9, step)}}, {"step": step}, keep=2)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_killed_at_every_file_operation(tmp_path, again):
    """Whatever the moment, the newest complete checkpoint loads, and the next save cleans up."""
    number = 0
    ended = False
    while not ended:
        number += 1
        folder = tmp_path / str(number)
        for step in (1, 2):
            save(folder, step, {"model": {"w": np.full(9, step)}}, {"step": step}, keep=2)
        step = 2 if again else 3
        ended = killed_at_event(folder, step, number)
        found = load_latest(folder)
        assert found.step in (2, 3)
        assert found.state["step"] == found.step
        assert np.array_equal(found.arrays["model"]["w"], np.full(9, found.step))
        # The one before it goes only when the new one is complete.
        assert found.step == 3 or load(folder / "step-00000001").step == 1
        save(folder, 4, {}, {}, keep=1)
        assert names_in(folder) == ["step-00000004"]
        shutil.rmtree(folder)
    assert number > 20


SAVE_FOREVER = f"""
import itertools, sys
import numpy as np
from longnet.checkpoint import save
for step in itertools.count(1):
    weights = {{str(i): np.full({ELEMENTS}, step + i, np.float32) for i in range(3)}}
    save(sys.argv[1], step, {{"model": weights, "optimizer": weights}}, {{}}, keep=2)
    print(step, flush=True)
"""


def test_killed_at_random_moments(tmp_path):
    rng = random.Random(5)
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SAVE_FOREVER, folder],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        with process:
            first = process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
            reported = [first, *process.stdout.read().splitlines()]
        last = int(reported[-1])
        found = load_latest(folder)
        assert found.step in (last, last + 1)
        assert_holds(found, found.step)
        save(folder, last + 2, arrays_of(last + 2), {}, keep=2)
        assert len(names_in(folder)) == 2


def test_all_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    """A power cut after the rename finds every file and both folders flushed."""
    save(tmp_path, 1, {}, {})
    events = []
    sync, rename = writer._fsync, Path.rename

    def record_sync(path):
        events.append(path.name)
        sync(path)

    def record_rename(path, target):
        events.append("renamed" if target.name == "step-00000002" else "older one removed")
        return rename(path, target)

    monkeypatch.setattr(writer, "_fsync", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    save(tmp_path, 2, {"model": {}}, {}, keep=1)
    files, end = events[:2], events[2:]
    assert sorted(files) == ["model.safetensors", "state.json"]
    assert end[0] == "manifest.json"
    assert end[1].startswith(".unfinished-step-00000002")
    assert end[2:] == ["renamed", tmp_path.name, "older one removed"]


def fail_with(number):
    def fail(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("place", ["save_file", "_fsync", "sha256"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_disk_that_refuses(tmp_path, monkeypatch, place, number):
    save(tmp_path, 1, arrays_of(1), {}, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(writer, place, fail_with(number))
        with pytest.raises(CheckpointError) as error:
            save(tmp_path, 2, arrays_of(2), {}, keep=1)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/step-00000002: cannot be saved: {os.strerror(number)}; ")
    needed, free = (int(part.split()[0]) for part in message.split("; ")[1].split(", "))
    assert 0 <= needed - 24 * ELEMENTS < 1000
    assert free > 0
    assert names_in(tmp_path) == ["step-00000001"]
    assert_holds(load_latest(tmp_path), 1)
    save(tmp_path, 2, arrays_of(2), {}, keep=1)
    assert_holds(load_latest(tmp_path), 2)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one and a half checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 36 * ELEMENTS
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_disk_that_is_full(small_disk):
    save(small_disk, 1, arrays_of(1), {})
    with pytest.raises(CheckpointError, match="No space left on device; 48") as error:
        save(small_disk, 2, arrays_of(2), {})
    assert shutil.disk_usage(small_disk).free == int(str(error.value).split()[-2])
    assert names_in(small_disk) == ["step-00000001"]
    assert_holds(load_latest(small_disk), 1)


@contextlib.contextmanager
def as_nobody():
    """Give up root's right to write anywhere, if this is root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_permission():
    # Not tmp_path: pytest makes that one private, and nobody must be able to look inside.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder, 1, arrays_of(1), {})
        folder.chmod(0o555)
        message = "step-00000002: cannot be saved: Permission denied; 48.* bytes needed, .* free"
        with as_nobody(), pytest.raises(CheckpointError, match=message):
            save(folder, 2, arrays_of(2), {}, keep=1)
        folder.chmod(0o755)
        assert names_in(folder) == ["step-00000001"]
        assert_holds(load_latest(folder), 1)


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").touch()
    for folder in (tmp_path / "runs", tmp_path / "runs" / "deeper"):
        with pytest.raises(CheckpointError, match=r"cannot be saved: (File exists|Not a dir)"):
            save(folder, 1, {}, {})
    with pytest.raises(CheckpointError, match="cannot be read: Not a directory"):
        latest(tmp_path / "runs")


def test_interrupt_removes_what_was_written(tmp_path, monkeypatch):
    save(tmp_path, 1, {}, {})

    def interrupt(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "sha256", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2, {}, {})
    assert names_in(tmp_path) == ["step-00000001"]
    assert save(tmp_path, 2, {}, {}) == tmp_path / "step-00000002"


def test_older_one_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    save(tmp_path, 1, {}, {})
    with monkeypatch.context() as patch:
        patch.setattr(writer.shutil, "rmtree", fail_with(errno.EACCES))
        with pytest.warns(UserWarning, match="cannot be removed: Permission denied"):
            save(tmp_path, 2, {}, {}, keep=1)
    assert load_latest(tmp_path).step == 2
    save(tmp_path, 3, {}, {}, keep=1)
    assert names_in(tmp_path) == ["step-00000003"]
