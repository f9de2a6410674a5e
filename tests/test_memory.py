"""Host memory: what is freed serves again, and is given back when it is needed."""

import resource

import pytest

longnet = pytest.importorskip("longnet")

MEGABYTES = 1 << 20


def test_freed_memory_serves_again():
    first = longnet.Tensor.empty((64, MEGABYTES), "uint8")
    where = first.numpy().ctypes.data
    del first
    second = longnet.Tensor.empty((64, MEGABYTES), "uint8")
    assert second.numpy().ctypes.data == where


def test_empty_cache_gives_it_back():
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    tensor = longnet.Tensor.empty((256, MEGABYTES), "uint8")
    tensor.numpy()[:] = 1
    del tensor
    longnet.empty_cache("cpu")
    before = resident()
    tensor = longnet.Tensor.empty((256, MEGABYTES), "uint8")
    tensor.numpy()[:] = 1
    assert resident() - before > 200 * MEGABYTES
    del tensor
    longnet.empty_cache("cpu")
    assert resident() - before < 50 * MEGABYTES


def test_kept_memory_makes_room(python):
    """A request that fails only because of memory that is kept does not fail."""
    code = """
import resource, longnet
MEGABYTES = 1 << 20
kept = longnet.Tensor.empty((512, MEGABYTES), "uint8")
del kept
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = held + 64 * MEGABYTES
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
longnet.Tensor.empty((300, MEGABYTES), "uint8")
try:
    longnet.Tensor.empty((900, MEGABYTES), "uint8")
except longnet.OutOfMemoryError as error:
    print(error)
"""
    run = python("-c", code)
    assert run.returncode == 0, run.stderr
    assert "943718400 bytes asked for" in run.stdout
