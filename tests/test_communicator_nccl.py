"""The communicator of GPUs: two processes, a GPU each; and what of it needs no GPU."""

import ctypes
import json
import os
import threading
import time
from types import SimpleNamespace

import nccl_rank
import pytest
from ranks import gpus

import longnet
from longnet import _core, cuda_libraries
from longnet.communicator import nccl, nccl_library
from longnet.communicator.watchdog import Watchdog

SIZE = 2


def ranks(scenario):
    """What each rank of a scenario printed, its exit status, and the text of its errors."""
    return [
        (
            [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")],
            done.returncode,
            done.stderr,
        )
        for done in gpus(SIZE, nccl_rank.__file__, scenario)
    ]


@pytest.fixture(scope="module")
def methods():
    return ranks("methods")


@pytest.mark.gpu
@pytest.mark.parametrize("name", [test.__name__ for test in nccl_rank.METHODS])
def test_method(methods, name):
    for lines, _, errors in methods:
        found = {line["name"]: line.get("error") for line in lines}
        assert name in found, errors
        assert found[name] == "", found[name]


@pytest.mark.gpu
def test_all_ranks_close(methods):
    for lines, status, errors in methods:
        assert status == 0, errors
        assert lines[-1]["name"] == "closed"


@pytest.mark.gpu
def test_a_rank_that_is_killed_is_named():
    (lines, status, errors), (_, killed, _) = ranks("killed")
    assert killed == -9
    assert status == 0, errors
    assert "rank 0 of 2, all_reduce: rank 1 died" in lines[0]["error"]
    assert lines[0]["seconds"] < nccl_rank.TIMEOUT + 5


@pytest.mark.gpu
def test_a_rank_that_does_not_come_fails_all():
    for lines, status, errors in ranks("late"):
        assert status == 0, errors
        assert "all_reduce" in lines[0]["error"]
        assert "deadline, during all_reduce" in lines[0]["error"]
        assert lines[0]["seconds"] < nccl_rank.TIMEOUT + 5


@pytest.mark.gpu
def test_abort_reaches_the_others():
    for lines, status, errors in ranks("aborted"):
        assert status == 0, errors
        assert "rank 1 aborted: the disk is full" in lines[0]["error"]


@pytest.mark.gpu
def test_close_tells_what_nobody_was_told():
    for lines, status, errors in ranks("told_at_the_end"):
        assert status == 0, errors
        assert "deadline, during all_reduce" in lines[0]["error"]
        assert lines[0]["seconds"] < nccl_rank.TIMEOUT + 5


# ---- without a GPU ----


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((b"short", 0, 2, "cuda:0"), longnet.ConfigError, "unique_id: 5 bytes, expected 128"),
        ((b"x" * 128, 2, 2, "cuda:0"), longnet.ConfigError, "rank 2 of 2, expected 0 to 1"),
        ((b"x" * 128, 0, 2, "cpu"), longnet.DeviceError, "expected cuda or cuda:N"),
    ],
)
def test_wrong_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        _core.NcclCommunicator(*arguments)


def test_a_missing_library_names_what_to_install(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_libraries, "load", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "1")
    with pytest.raises(longnet.DeviceError, match=r"libnccl.so.2.*longnet-native\[cuda\]"):
        nccl_library.load_library()
    assert os.environ["NCCL_NVLS_ENABLE"] == "1"


def test_multicast_is_off_unless_asked_for(monkeypatch):
    # set first, so that the end of the test takes away what load_library() sets
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "")
    del os.environ["NCCL_NVLS_ENABLE"]
    monkeypatch.setattr(cuda_libraries, "load", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    fake = SimpleNamespace(version=lambda: "2.30.7")
    monkeypatch.setattr(_core, "NcclCommunicator", fake)
    assert nccl_library.load_library() == "2.30.7"
    assert os.environ["NCCL_NVLS_ENABLE"] == "0"


class FakeRendezvous:
    """Of rank 0 of 2; the other's answer to the first question is given."""

    rank, size, timeout, failure = 0, 2, 1.0, None

    def __init__(self, theirs):
        self.theirs = theirs
        self.aborts = []

    def gather(self, value, what):
        return [value, self.theirs]

    def abort(self, reason):
        self.aborts.append(reason)

    def close(self):
        pass


def test_ranks_without_nccl_are_told_of_each_other(monkeypatch):
    def missing():
        raise longnet.DeviceError("no NCCL here")

    monkeypatch.setattr(nccl, "load_library", missing)
    with pytest.raises(longnet.DeviceError, match="no NCCL here"):
        nccl.NcclCommunicator(FakeRendezvous(("", "2.30.7", b"")), "cuda:0")
    monkeypatch.setattr(nccl, "load_library", lambda: "2.30.7")
    monkeypatch.setattr(_core, "NcclCommunicator", SimpleNamespace(unique_id=lambda: b"x" * 128))
    expected = "rank 0 of 2, connect: rank 1: no NCCL there"
    with pytest.raises(longnet.CommunicatorError, match=expected):
        nccl.NcclCommunicator(FakeRendezvous(("no NCCL there", "", b"")), "cuda:0")
    with pytest.raises(longnet.ConfigError, match=r"found 2\.29\.2 on rank 1, expected 2\.30\.7"):
        nccl.NcclCommunicator(FakeRendezvous(("", "2.29.2", b"")), "cuda:0")


class FakeNative:
    """NCCL on one rank, which does nothing."""

    def __init__(self, *arguments):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append(name) or True

    unique_id = staticmethod(lambda: b"x" * 128)


@pytest.fixture
def rank_0(monkeypatch):
    """A communicator of rank 0 of 2, on a fake NCCL."""
    monkeypatch.setattr(nccl, "load_library", lambda: "2.30.7")
    monkeypatch.setattr(_core, "NcclCommunicator", FakeNative)
    return nccl.NcclCommunicator(FakeRendezvous(("", "2.30.7", b"")), "cuda:0")


def test_a_rank_that_died_between_calls_fails_the_next_ones(rank_0):
    rank_0._rendezvous.failure = "rank 1 died"
    for _ in range(2):
        with pytest.raises(longnet.CommunicatorError, match="rank 0 of 2, barrier: rank 1 died"):
            rank_0.barrier()
    assert rank_0._native.calls.count("stop") == 1
    assert rank_0._rendezvous.aborts == ["rank 1 died, during barrier"]
    rank_0.close()


def test_close_ends_in_order(rank_0):
    rank_0._native.calls.clear()
    rank_0.close()
    rank_0.close()
    assert rank_0._native.calls == ["finalize", "poll", "close", "stop"]
    with pytest.raises(longnet.CommunicatorError, match="closed"):
        rank_0.barrier()


def test_close_raises_what_no_call_has(rank_0):
    rank_0._fail("rank 1 died, during all_gather")
    with pytest.raises(longnet.CommunicatorError, match="close: rank 1 died, during all_gather"):
        rank_0.close()


def test_an_exception_in_its_block_is_not_replaced(rank_0):
    with pytest.raises(KeyError), rank_0:
        raise KeyError("mine")
    assert "rank 0 aborted: KeyError" in rank_0._rendezvous.aborts[0]


def work(seconds, done=False):
    return SimpleNamespace(name="all_gather", deadline=time.monotonic() + seconds, done=done)


@pytest.fixture
def watch():
    """A running watchdog, the trouble that it is told of, and the causes that it gave."""
    causes, called, trouble = [], threading.Event(), SimpleNamespace(cause=None)

    def fail(cause):
        causes.append(cause)
        called.set()

    watchdog = Watchdog(lambda: trouble.cause, fail)
    watchdog.start()
    yield SimpleNamespace(dog=watchdog, trouble=trouble, causes=causes, called=called)
    watchdog.end()
    watchdog.join(5)
    assert not watchdog.is_alive()


def test_what_is_done_in_time_is_forgotten(watch):
    one, two = work(10), work(10)
    watch.dog.watch(one)
    watch.dog.watch(two)
    threading.Timer(0.05, lambda: setattr(one, "done", True)).start()
    threading.Timer(0.1, lambda: setattr(two, "done", True)).start()
    watch.dog.drain()
    assert one.done
    assert two.done
    assert watch.causes == []


def test_a_deadline_is_noticed(watch):
    watch.dog.watch(work(10, done=True))
    watch.dog.watch(work(0.05))
    assert watch.called.wait(5)
    assert "deadline, during all_gather" in watch.causes[0]
    watch.dog.drain()


def test_trouble_is_noticed_while_something_is_under_way(watch):
    watch.trouble.cause = "rank 1 died"
    time.sleep(0.1)
    assert watch.causes == []
    watch.dog.watch(work(10))
    assert watch.called.wait(5)
    assert watch.causes == ["rank 1 died, during all_gather"]
