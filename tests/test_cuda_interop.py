"""GPU arrays of PyTorch, CuPy and JAX in and out without a copy, and what is refused."""

import gc

import numpy as np
import pytest

import longnet
from longnet import Tensor

pytestmark = pytest.mark.gpu

CLOCKS = 200_000_000  # about a tenth of a second of a GPU


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


def pointer(tensor):
    return tensor.__cuda_array_interface__["data"][0]


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "int32", "int64", "uint8"])
def test_torch_both_ways(torch, name):
    theirs = torch.arange(60, device="cuda").to(getattr(torch, name)).reshape(3, 5, 4)
    ours = Tensor(theirs)
    assert (ours.device, ours.dtype, ours.shape) == ("cuda:0", name, (3, 5, 4))
    expected = theirs.float().cpu().numpy()
    np.testing.assert_array_equal(ours.to("cpu").numpy().astype(np.float32), expected)
    theirs.add_(1)
    torch.cuda.synchronize()
    np.testing.assert_array_equal(ours.to("cpu").numpy().astype(np.float32), expected + 1)
    back = torch.from_dlpack(ours)
    assert back.data_ptr() == theirs.data_ptr()
    assert torch.equal(back, theirs)


def test_torch_views_keep_their_strides(torch):
    theirs = torch.randn(6, 5, 4, device="cuda")
    for view in (theirs[:, ::2], theirs.transpose(0, 2), theirs[1:, 3], theirs[0:0]):
        ours = Tensor(view)
        assert ours.shape == tuple(view.shape)
        np.testing.assert_array_equal(ours.to("cpu").numpy(), view.cpu().numpy())
        assert torch.equal(torch.from_dlpack(ours), view)


def test_torch_takes_our_memory(torch, rng):
    array = rng.random((100, 7), dtype=np.float32)
    ours = Tensor(array).to("cuda")
    theirs = torch.from_dlpack(ours)
    by_interface = torch.as_tensor(ours, device="cuda")
    assert theirs.data_ptr() == by_interface.data_ptr() == pointer(ours)
    np.testing.assert_array_equal(theirs.cpu().numpy(), array)
    del ours
    gc.collect()
    np.testing.assert_array_equal((theirs * 2).cpu().numpy(), array * 2)


def test_cupy_both_ways(cupy, rng):
    array = rng.random((9, 8), dtype=np.float32)
    theirs = cupy.asarray(array)
    ours = Tensor(theirs)
    assert pointer(ours) == theirs.data.ptr
    np.testing.assert_array_equal(ours.to("cpu").numpy(), array)
    for back in (cupy.from_dlpack(ours), cupy.asarray(ours)):
        assert back.data.ptr == theirs.data.ptr
        np.testing.assert_array_equal(cupy.asnumpy(back), array)
    step = Tensor(theirs[::2, ::-1])
    np.testing.assert_array_equal(step.to("cpu").numpy(), array[::2, ::-1])


def test_jax_both_ways(rng, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of the GPU
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX has no GPU here")
    array = rng.random((9, 8), dtype=np.float32)
    theirs = jax.numpy.asarray(array)
    ours = Tensor(theirs)
    assert ours.device == "cuda:0"
    assert pointer(ours) == theirs.unsafe_buffer_pointer()
    np.testing.assert_array_equal(ours.to("cpu").numpy(), array)
    mine = Tensor(array).to("cuda")
    back = jax.dlpack.from_dlpack(mine)
    assert back.unsafe_buffer_pointer() == pointer(mine)
    np.testing.assert_array_equal(np.asarray(back * 2), array * 2)


class Interface:
    """An object that is an array by the CUDA array interface alone."""

    def __init__(self, **changes):
        self.__cuda_array_interface__ = changes


def test_cuda_array_interface_in(cupy):
    theirs = cupy.arange(24, dtype=cupy.float32).reshape(4, 6)
    described = theirs.__cuda_array_interface__
    for view in (theirs, theirs[:, 1::2], theirs[2:2]):
        ours = Tensor(Interface(**view.__cuda_array_interface__))
        np.testing.assert_array_equal(ours.to("cpu").numpy(), cupy.asnumpy(view))
    for changes, error, message in [
        ({"typestr": "<f8"}, longnet.DTypeError, "type string '<f8', expected <f4"),
        ({"strides": (24, 3)}, longnet.ConfigError, "a stride of 3 bytes"),
        ({"strides": (4,)}, longnet.ShapeError, "not as many strides"),
        ({"data": (described["data"][0] + 2, False)}, longnet.ConfigError, "not aligned"),
        ({"mask": theirs}, longnet.ConfigError, "masked"),
        ({"stream": 0}, longnet.ConfigError, "stream: expected None or a positive"),
    ]:
        with pytest.raises(error, match=message):
            Tensor(Interface(**{**described, **changes}))


def test_cuda_array_interface_out(rng):
    tensor = Tensor(rng.random((4, 6), dtype=np.float32)).to("cuda")
    described = tensor[:, ::2].__cuda_array_interface__
    assert (described["shape"], described["strides"]) == ((4, 3), (24, 8))
    assert (described["typestr"], described["version"]) == ("<f4", 3)
    assert described["stream"] == longnet.Stream.current().handle
    assert not hasattr(Tensor.empty(3), "__cuda_array_interface__")
    assert not hasattr(Tensor.empty(3, "bfloat16", "cuda"), "__cuda_array_interface__")


def test_host_memory_passed_as_a_gpus_is_refused(cupy):
    array = np.zeros((4, 6), np.float32)
    described = cupy.zeros((4, 6), cupy.float32).__cuda_array_interface__
    described["data"] = (array.ctypes.data, False)
    with pytest.raises(longnet.DeviceError, match="is host memory, expected memory of a GPU"):
        Tensor(Interface(**described))

    class Liar:
        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, *, stream, **keywords):
            assert stream == longnet.Stream.current().handle
            return Tensor(array).__dlpack__()

    ours = Tensor(Liar())  # its capsule says the truth
    assert ours.device == "cpu"

    class Silent:
        def __dlpack__(self, **keywords):
            return Tensor.empty(3, device="cuda").__dlpack__()

    with pytest.raises(longnet.DeviceError, match="__dlpack_device__ says otherwise"):
        Tensor(Silent())


def test_dlpack_streams(torch):
    tensor = Tensor.empty((3, 4), device="cuda")
    assert tensor.__dlpack_device__() == (2, 0)
    for stream in (None, -1, 1, 2, torch.cuda.Stream().cuda_stream):
        assert "dltensor" in repr(tensor.__dlpack__(stream=stream))
    for stream in (0, -2):
        with pytest.raises(BufferError, match="expected None, -1, 1"):
            tensor.__dlpack__(stream=stream)
    with pytest.raises(BufferError, match=r"dl_device \(2, 1\), expected \(2, 0\)"):
        tensor.__dlpack__(dl_device=(2, 1))
    on_host = np.from_dlpack(Tensor(np.ones(3, np.float32)).to("cuda"), device="cpu")
    np.testing.assert_array_equal(on_host, np.ones(3))


def test_work_of_their_stream_comes_first(torch):
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        theirs = torch.zeros(1_000_000, device="cuda")
        torch.cuda._sleep(CLOCKS)
        theirs.fill_(3)
        ours = Tensor(theirs)
    assert (ours.to("cpu").numpy() == 3).all()


@pytest.mark.parametrize("side", [False, True], ids=["default", "side"])
def test_work_of_our_stream_comes_first(torch, side):
    queue = torch.cuda.Stream()
    source = torch.full((1_000_000,), 5.0, device="cuda")
    torch.cuda.synchronize()
    with longnet.Stream(handle=queue.cuda_stream), torch.cuda.stream(queue):
        torch.cuda._sleep(CLOCKS)
        ours = Tensor(source).copy()
    with torch.cuda.stream(torch.cuda.Stream() if side else torch.cuda.default_stream()):
        assert torch.from_dlpack(ours).sum().item() == 5_000_000


def test_their_memory_outlives_our_work_on_it(torch):
    queue = torch.cuda.Stream()
    theirs = torch.full((4_000_000,), 7.0, device="cuda")
    torch.cuda.synchronize()
    with longnet.Stream(handle=queue.cuda_stream):
        with torch.cuda.stream(queue):
            torch.cuda._sleep(CLOCKS)
        copy = Tensor(theirs).copy()
    del theirs
    others = [torch.full((4_000_000,), 9.0, device="cuda") for _ in range(4)]
    torch.cuda.synchronize()
    assert (copy.to("cpu").numpy() == 7).all()
    assert len(others) == 4


def test_our_memory_outlives_their_work_on_it(torch):
    longnet.synchronize("cuda")
    ours = Tensor(np.full(4_000_000, 7, np.float32)).to("cuda")
    nines = np.full(4_000_000, 9, np.float32)
    for side in (torch.cuda.default_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(side):
            theirs = torch.from_dlpack(ours.copy())
            torch.cuda._sleep(CLOCKS)
            copy = theirs.clone()
            del theirs
        others = [Tensor(nines).to("cuda") for _ in range(4)]
        longnet.synchronize("cuda")
        assert (copy == 7).all()
        assert len(others) == 4


def test_strided_beyond_2_31_elements(cupy, torch):
    torch.cuda.empty_cache()  # what earlier tests left
    longnet.empty_cache("cuda")
    count = (1 << 31) + 77
    theirs = cupy.empty((count, 2), cupy.uint8)
    theirs[:, 1] = cupy.arange(count, dtype=cupy.uint32) % 251
    theirs[:, 0] = 255
    copy = cupy.from_dlpack(Tensor(theirs)[:, 1].copy())
    assert bool((copy == theirs[:, 1]).all())
    del theirs, copy
    cupy.get_default_memory_pool().free_all_blocks()


def test_a_fault_says_that_the_process_must_restart(python, cupy):
    code = (
        "import cupy, longnet\n"
        "tensor = longnet.Tensor.empty(1000, device='cuda')\n"
        "bad = cupy.RawKernel('extern \"C\" __global__ void f(int *p) { p[0] = 1; }', 'f')\n"
        "bad((1,), (1,), (cupy.uint64(64),))\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        longnet.synchronize('cuda')\n"
        "        print('nothing')\n"
        "    except longnet.DeviceError as error:\n"
        "        print(error)\n"
        "del tensor\n"
    )
    result = python("-c", code)
    lines = result.stdout.splitlines()
    assert len(lines) == 2, result.stderr
    for line in lines:
        assert "the GPU has faulted" in line
        assert "must be restarted" in line
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_attention_takes_torch_tensors(torch, dtype):
    attention = longnet.DilatedAttention([64, 256], [1, 4])
    kind = getattr(torch, dtype)
    q, k, v = (torch.randn(2, 300, 4, 64, device="cuda", dtype=kind) for _ in range(3))
    try:
        out, lse = attention.forward(q, k, v)
    except longnet.DeviceError as error:
        if "no CUDA kernel in this build" in str(error):
            pytest.skip(str(error))
        raise
    assert (type(out), out.device, out.dtype) == (Tensor, "cuda:0", dtype)
    expected, expected_lse = attention.forward(*(x.float().cpu().numpy() for x in (q, k, v)))
    found = out.to("cpu").numpy().astype(np.float32)
    assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)
    np.testing.assert_allclose(lse.to("cpu").numpy(), expected_lse, atol=2e-2)
