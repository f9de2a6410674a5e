"""Tensors on a GPU: copies, views, memory and its errors."""

import gc
import re

import ml_dtypes
import numpy as np
import pytest

import longnet
from longnet import Tensor, _core

pytestmark = pytest.mark.gpu

DTYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
}


@pytest.fixture(params=DTYPES)
def array(request, rng):
    return (rng.random((5, 7, 6)) * 100).astype(DTYPES[request.param])


def on_gpu(array):
    return Tensor(array).to("cuda:0")


def test_round_trip(array):
    tensor = on_gpu(array)
    assert (tensor.device, tensor.shape, tensor.dtype) == ("cuda:0", array.shape, array.dtype.name)
    assert tensor.to("cuda") is tensor
    np.testing.assert_array_equal(tensor.to("cpu").numpy(), array)


@pytest.mark.parametrize("count", [0, 1, 2_097_153, 6_291_456, 10_000_019])
@pytest.mark.parametrize("pinned", [False, True], ids=["pageable", "pinned"])
def test_copies_of_any_size(rng, count, pinned):
    source = Tensor.empty(count, pinned=pinned)
    source.numpy()[...] = rng.random(count, dtype=np.float32)
    expected = source.numpy().copy()
    tensor = source.to("cuda")
    source.numpy()[...] = -1  # the copy is complete
    np.testing.assert_array_equal(tensor.to("cpu").numpy(), expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: a[1:, 3],
        lambda a: a[2:3, 1:],
        lambda a: a[1:1],
        lambda a: a[2, 3, 4],
        lambda a: a[::2, ::-3, 1::2],
    ],
)
def test_views_are_copied_right(array, view):
    whole = on_gpu(array)
    part = view(whole)
    assert part.device == "cuda:0"
    np.testing.assert_array_equal(part.to("cpu").numpy(), view(array))
    copy = part.copy()
    assert copy.is_contiguous
    np.testing.assert_array_equal(copy.to("cpu").numpy(), view(array))
    on_host = np.asarray(view(array))
    np.testing.assert_array_equal(Tensor(on_host).to("cuda").to("cpu").numpy(), on_host)


def test_eight_dimensions(rng):
    array = rng.random((2, 3, 2, 3, 2, 3, 2, 3), dtype=np.float32)
    key = (slice(None, None, -1), slice(1, None), *[slice(None)] * 4, slice(1), slice(0, 3, 2))
    np.testing.assert_array_equal(on_gpu(array)[key].copy().to("cpu").numpy(), array[key])


def test_memory_is_poisoned_on_request(python):
    code = (
        "import longnet, numpy as np\n"
        "t = longnet.Tensor.empty(1000, device='cuda')\n"
        "assert np.isnan(t.to('cpu').numpy()).all()"
    )
    result = python("-c", code, LONGNET_POISON="1")
    assert result.returncode == 0, result.stderr


def test_host_access_is_refused_by_name():
    tensor = Tensor.empty(3, device="cuda")
    with pytest.raises(longnet.DeviceError, match=r"cuda:0, expected one on the cpu: use to"):
        tensor.numpy()
    with pytest.raises(longnet.DeviceError, match="expected one on the cpu"):
        np.asarray(tensor)
    with pytest.raises(BufferError, match="no host buffer"):
        memoryview(tensor)
    with pytest.raises(longnet.DeviceError, match="pinned memory on cuda:0, expected on the cpu"):
        Tensor.empty(3, device="cuda", pinned=True)


def test_ops_name_who_lies_elsewhere(rng):
    x = on_gpu(rng.random((4, 8), dtype=np.float32))
    weight = on_gpu(np.ones(8, np.float32))
    with pytest.raises(longnet.DeviceError, match="rms_norm: "):
        _core.ops.rms_norm(Tensor.empty((4, 8)), Tensor.empty(4), x, weight, 1e-5)


def test_memory_is_counted():
    longnet.synchronize("cuda")
    before = longnet.memory_stats("cuda")
    longnet.reset_peak_memory("cuda")
    tensor = Tensor.empty((1000, 1000), device="cuda")
    now = longnet.memory_stats("cuda:0")
    assert now["bytes"] == before["bytes"] + tensor.nbytes
    assert now["reserved_bytes"] >= tensor.nbytes
    assert 0 < now["free_bytes"] < now["total_bytes"]
    del tensor
    after = longnet.memory_stats("cuda")
    assert after["bytes"] == before["bytes"]
    assert after["peak_bytes"] == before["bytes"] + 4_000_000


def test_cached_memory_can_be_given_back():
    tensor = Tensor.empty(1 << 30, "uint8", "cuda")
    del tensor
    longnet.empty_cache("cuda")
    kept = longnet.memory_stats("cuda")["reserved_bytes"]
    assert kept < 1 << 30


def test_pinned_memory_is_used_again_while_nobody_holds_it():
    first = Tensor.empty(1_000_000, pinned=True)
    place = first.numpy().ctypes.data
    second = Tensor.empty(1_000_000, pinned=True)
    assert second.numpy().ctypes.data != place
    del first
    third = Tensor.empty(900_000, pinned=True)
    assert third.numpy().ctypes.data == place
    fourth = Tensor.empty(100, pinned=True)
    assert fourth.numpy().ctypes.data != place


@pytest.mark.parametrize("offset", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("width", [2, 6, 8, 48, 64])
def test_rows_of_any_alignment(rng, offset, width):
    array = rng.integers(0, 255, (33, 7, 80), np.uint8)
    part = on_gpu(array)[::-2, 1::3, offset : offset + width]
    expected = array[::-2, 1::3, offset : offset + width]
    np.testing.assert_array_equal(part.copy().to("cpu").numpy(), expected)


def test_too_much_memory_is_refused_and_the_next_call_works():
    total = longnet.memory_stats("cuda")["total_bytes"]
    for bytes_asked in (total + 1, 1 << 50):
        with pytest.raises(longnet.OutOfMemoryError) as info:
            Tensor.empty(bytes_asked, "uint8", "cuda")
        found = re.search(r"cuda:0: (\d+) bytes asked for, (\d+) free of (\d+)", str(info.value))
        assert found
        assert int(found[1]) == bytes_asked
        assert 0 < int(found[2]) < total
    np.testing.assert_array_equal(on_gpu(np.ones(9, np.uint8)).to("cpu").numpy(), np.ones(9))


def test_all_of_the_memory_can_be_used_in_turn():
    longnet.empty_cache("cuda")
    free = longnet.memory_stats("cuda")["free_bytes"]
    for share in (0.6, 0.7, 0.8):  # none of these fits beside one before
        tensor = Tensor.empty(int(free * share), "uint8", "cuda")
        assert tensor.nbytes == int(free * share)
        del tensor
    longnet.empty_cache("cuda")


def test_the_nth_allocation_can_be_made_to_fail():
    _core.alloc_fail_at(1)
    with pytest.raises(longnet.OutOfMemoryError, match=r"cuda:0: 12 bytes asked for"):
        Tensor.empty(3, device="cuda")
    assert Tensor.empty(3, device="cuda").shape == (3,)


def test_a_forked_child_is_told(python):
    code = (
        "import os, longnet\n"
        "tensor = longnet.Tensor.empty(3, device='cuda')\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        longnet.Tensor.empty(3, device='cuda')\n"
        "    except longnet.DeviceError as error:\n"
        "        ok = 'forked' in str(error)\n"
        "    del tensor\n"
        "    os._exit(0 if ok else 1)\n"
        "assert os.wait()[1] == 0\n"
        "longnet.Tensor.empty(3, device='cuda')\n"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr


def test_memory_does_not_leak(array):
    gc.collect()
    longnet.synchronize("cuda")
    before = longnet.memory_stats("cuda")["bytes"]
    for _ in range(50):
        on_gpu(array)[::2].copy().to("cpu")
    gc.collect()
    assert longnet.memory_stats("cuda")["bytes"] == before


def test_item():
    assert Tensor(np.array([[2.5]], np.float32)).to("cuda").item() == 2.5
    with pytest.raises(ValueError, match="size 1"):
        Tensor(np.zeros(2, np.float32)).to("cuda").item()
