"""Several GPUs: copies between them, and tensors that lie on different ones."""

import numpy as np
import pytest

import longnet
from longnet import Stream, Tensor, _core

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def two_gpus():
    found = len(_core.cuda_status()[2]["devices"])
    if found < 2:
        pytest.skip(f"{found} GPU, needs 2")


def test_copies_between_gpus(rng):
    array = rng.random((301, 77), dtype=np.float32)
    first = Tensor(array).to("cuda:0")
    second = first.to("cuda:1")
    assert second.device == "cuda:1"
    np.testing.assert_array_equal(second.to("cpu").numpy(), array)
    part = second[::-2, 5:].to("cuda:0")
    np.testing.assert_array_equal(part.to("cpu").numpy(), array[::-2, 5:])


def test_copies_wait_for_the_source(rng):
    torch = pytest.importorskip("torch")
    queue = torch.cuda.Stream("cuda:0")
    source = torch.full((4_000_000,), 5.0, device="cuda:0")
    torch.cuda.synchronize()
    with Stream("cuda:0", handle=queue.cuda_stream), torch.cuda.stream(queue):
        torch.cuda._sleep(200_000_000)
        ours = Tensor(source).copy()
    there = ours.to("cuda:1")
    del ours
    others = [Tensor(np.full(4_000_000, 9, np.float32)).to("cuda:0") for _ in range(3)]
    assert (there.to("cpu").numpy() == 5).all()
    assert len(others) == 3


def test_each_gpu_counts_its_own_memory():
    before = [longnet.memory_stats(f"cuda:{i}")["bytes"] for i in range(2)]
    tensor = Tensor.empty(1000, device="cuda:1")
    after = [longnet.memory_stats(f"cuda:{i}")["bytes"] for i in range(2)]
    assert after == [before[0], before[1] + tensor.nbytes]
    assert Stream.current("cuda:1").device == "cuda:1"


def test_other_libraries_keep_their_current_gpu():
    torch = pytest.importorskip("torch")
    theirs = torch.arange(100, device="cuda:1", dtype=torch.float32)
    assert torch.cuda.current_device() == 0
    with torch.cuda.device(1):  # PyTorch exports from its current GPU alone
        ours = Tensor(theirs)
    assert ours.device == "cuda:1"
    copy = torch.from_dlpack(ours[::2].copy())
    assert (copy.device.index, torch.cuda.current_device()) == (1, 0)
    assert torch.equal(copy, theirs[::2])


def test_tensors_on_different_gpus_are_refused(rng):
    x = Tensor(rng.random((4, 8), dtype=np.float32)).to("cuda:0")
    weight = Tensor(np.ones(8, np.float32)).to("cuda:1")
    y, rstd = Tensor.empty((4, 8), device="cuda:0"), Tensor.empty(4, device="cuda:0")
    with pytest.raises(longnet.DeviceError, match=r"weight: device cuda:1, expected cuda:0"):
        _core.ops.rms_norm(y, rstd, x, weight, 1e-5)
    q = Tensor.empty((1, 64, 2, 32), "bfloat16", "cuda:0")
    k = Tensor.empty((1, 64, 2, 32), "bfloat16", "cuda:1")
    with pytest.raises(longnet.DeviceError, match=r"device cuda:1, expected cuda:0"):
        longnet.DilatedAttention([64], [1]).forward(q, k, k)
