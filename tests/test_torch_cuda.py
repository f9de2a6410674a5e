"""longnet.torch on a GPU: against the CPU, on PyTorch's streams and in PyTorch's memory."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.6", reason="PyTorch is not installed")

import longnet  # noqa: E402
from longnet.torch import DilatedAttention, dilated_attention  # noqa: E402

CLOCKS = 200_000_000  # about a tenth of a second of a GPU

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _kernels():
    """Skips where PyTorch sees no GPU, or the build has no kernel for the two ops."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    x = torch.zeros(1, 64, 1, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    try:
        dilated_attention(x, x, x, [64], [1]).sum().backward()
    except longnet.DeviceError as error:
        if "no CUDA kernel in this build" not in str(error):
            raise
        pytest.skip(str(error))


def tensors(rng, dtype=torch.bfloat16, n=300, kv_heads=2):
    shapes = [(2, n, h, 64) for h in (4, kv_heads, kv_heads)]
    arrays = [rng.standard_normal(s, dtype=np.float32) for s in shapes]
    return [torch.from_numpy(x).to("cuda", dtype).requires_grad_() for x in arrays]


def gradients(function, inputs):
    out = function(*inputs)
    return out.detach(), *torch.autograd.grad(out.float().square().sum(), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lengths", [None, torch.tensor([300, 77])], ids=["all rows", "lengths"])
def test_against_the_cpu(rng, dtype, lengths):
    inputs = tensors(rng, dtype)
    results = [
        gradients(lambda *x: dilated_attention(*x, [64, 256], [1, 4], lengths=lengths), x)
        for x in (inputs, [x.detach().cpu().float().requires_grad_() for x in inputs])
    ]
    for gpu, cpu in zip(*results, strict=True):
        assert (gpu.device.type, gpu.dtype) == ("cuda", dtype)
        assert (gpu.cpu().float() - cpu).norm() < 1e-2 * cpu.norm()


def test_opcheck(rng):
    options = ((64, 256), (1, 4), True, "interleaved", "exact", False, None, 0.0, None, None, None)
    torch.library.opcheck(torch.ops.longnet.dilated_attention.default, (*tensors(rng), *options))


def test_compiled_equals_eager(rng):
    module = DilatedAttention([64, 256], [1, 4])
    inputs = tensors(rng)
    compiled = torch.compile(module, fullgraph=True)(*inputs)
    assert torch.equal(compiled, module(*inputs))
    compiled.sum().backward()


@pytest.mark.parametrize("side", [False, True], ids=["default", "side"])
def test_work_is_queued_on_the_current_stream(rng, side):
    """Inputs written late on the stream, a result read on it, and nobody waits."""
    late = [x.detach() for x in tensors(rng)]
    expected = dilated_attention(*late, [64, 256], [1, 4])
    inputs = [torch.zeros_like(x) for x in late]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream() if side else torch.cuda.default_stream()):
        torch.cuda._sleep(CLOCKS)
        for x, y in zip(inputs, late, strict=True):
            x.copy_(y)
        out = dilated_attention(*inputs, [64, 256], [1, 4]).clone()
        assert not torch.cuda.current_stream().query()  # the call has not waited
        for x in inputs:
            x.zero_()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)


def test_inputs_are_not_kept(rng):
    """PyTorch has the memory back at once, in the order of the stream."""
    inputs = [x.detach() for x in tensors(rng, n=20_000)]
    dilated_attention(*inputs, [64, 256], [1, 4])
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda._sleep(CLOCKS)
    out = dilated_attention(*(x.clone() for x in inputs), [64, 256], [1, 4])
    assert torch.cuda.memory_allocated() - before <= out.nbytes + (2 << 20)  # whole blocks
    assert not torch.cuda.current_stream().query()


def test_tensors_on_two_devices(rng):
    q, k, v = tensors(rng)
    for mixed in ((q, k.cpu(), v), (q.cpu(), k, v)):
        with pytest.raises(longnet.DeviceError, match="k: device"):
            dilated_attention(*mixed, [64], [1])
