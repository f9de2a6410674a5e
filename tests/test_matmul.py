"""The one place where products are taken."""

import ml_dtypes
import numpy as np
import pytest

import longnet
from longnet import Tensor, _core
from longnet.matmul import matmul

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
EPS = {"float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}  # half a unit in the last place
SHAPES = [(1, 1, 1), (1, 13, 7), (13, 1, 7), (7, 5, 33), (64, 130, 48)]


@pytest.fixture
def put(device):
    """Copies an array to the device, `offset` elements behind a multiple of 256 bytes."""

    def copy(array, offset=0):
        base = np.concatenate([np.zeros(offset, array.dtype), array.ravel()])
        return Tensor(base).to(device)[offset:].reshape(*array.shape)

    return copy


def back(tensor):
    return tensor.to("cpu").numpy().astype(float)


def transposed(array, transpose):
    return np.ascontiguousarray(array.T) if transpose else array


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_dtype", ["float32", "of a"])
@pytest.mark.parametrize("accumulate", ["no", "in place", "another"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_product(rng, put, dtype, out_dtype, accumulate, bias, shape):
    M, N, K = shape
    out_dtype = dtype if out_dtype == "of a" else out_dtype
    a, b = (rng.standard_normal(s).astype(DTYPES[dtype]) for s in ((M, K), (K, N)))
    c, d = (rng.standard_normal(s).astype(DTYPES[out_dtype]) for s in ((M, N), (N,)))
    a64, b64, c64, d64 = (x.astype(float) for x in (a, b, (accumulate != "no") * c, bias * d))
    expected, terms = a64 @ b64 + c64 + d64, np.abs(a64) @ np.abs(b64) + np.abs(c64) + np.abs(d64)
    # The result is rounded, and before it either c + bias or, in an epilogue, product + c.
    before = np.maximum(np.abs(c64 + d64), np.abs(expected - d64))
    limit = EPS[out_dtype] * (np.abs(expected) + before)
    limit += (K + 2) * 2**-24 * terms
    for transpose_a, transpose_b in np.ndindex(2, 2):
        for offset in (0, 1):
            out = put(c if accumulate == "in place" else np.full_like(c, np.nan), offset)
            matmul(
                out,
                put(transposed(a, transpose_a), offset),
                put(transposed(b, transpose_b), offset),
                bias=put(d, offset) if bias else None,
                transpose_a=bool(transpose_a),
                transpose_b=bool(transpose_b),
                c={"no": None, "in place": out, "another": put(c, 2 * offset)}[accumulate],
            )
            assert (np.abs(back(out) - expected) <= limit).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_dtype", ["float32", "of a"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 0, 9)])
def test_gradient_of_a_bias(rng, put, dtype, out_dtype, accumulate, shape):
    M, N, K = shape
    out_dtype = dtype if out_dtype == "of a" else out_dtype
    a, b = (rng.standard_normal(s).astype(DTYPES[dtype]) for s in ((K, M), (K, N)))
    c = rng.standard_normal((M, N)).astype(DTYPES[out_dtype])
    a64, b64 = a.astype(float), b.astype(float)
    expected = a64.T @ b64 + accumulate * c.astype(float)
    for offset in (0, 1):
        out = put(c, offset)
        dbias = put(np.full(M, np.nan, DTYPES[out_dtype]), offset)
        matmul(
            out,
            put(a, offset),
            put(b, offset),
            dbias=dbias,
            transpose_a=True,
            c=out if accumulate else None,
        )
        for found, exact, terms in (
            (out, expected, np.abs(a64).T @ np.abs(b64) + np.abs(c.astype(float))),
            (dbias, a64.sum(0), np.abs(a64).sum(0)),
        ):
            limit = EPS[out_dtype] * np.abs(exact) + (K + 2) * 2**-24 * terms
            assert (np.abs(back(found) - exact) <= limit).all()


def test_sizes_of_nothing(put):
    bias = np.array([1, 2, 3], np.float32)
    out = put(np.full((2, 3), np.nan, np.float32))
    nothing = put(np.empty((2, 0), np.float32)), put(np.empty((0, 3), np.float32))
    matmul(out, *nothing)
    assert not back(out).any()
    matmul(out, *nothing, bias=put(bias))
    matmul(out, *nothing, bias=put(bias), c=out)
    matmul(out, *nothing, c=out)
    np.testing.assert_array_equal(back(out), [2 * bias] * 2)
    dbias = put(np.full(2, np.nan, np.float32))
    matmul(out, put(np.empty((0, 2), np.float32)), nothing[1], dbias=dbias, transpose_a=True)
    assert not back(out).any()
    assert not back(dbias).any()
    for M, N in ((0, 3), (2, 0), (0, 0)):
        a, b = put(np.ones((M, 4), np.float32)), put(np.ones((4, N), np.float32))
        matmul(put(np.empty((M, N), np.float32)), a, b, bias=put(np.ones(N, np.float32)))


def repeated(rng, put, shape, dtype, count):
    """The bits of a product, its sums and a product with a bias, all different results."""
    M, N, K = shape
    a, b, bias = (put(rng.standard_normal(s).astype(DTYPES[dtype])) for s in ((K, M), (K, N), (N,)))
    out, dbias = put(np.empty((M, N), np.float32)), put(np.empty(M, np.float32))
    half = put(np.empty((M, N), DTYPES[dtype]))
    found = set()
    for _ in range(count):
        matmul(out, a, b, dbias=dbias, transpose_a=True)
        matmul(half, a, b, bias=bias, transpose_a=True)
        found.add(b"".join(back(x).tobytes() for x in (out, dbias, half)))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_each_time(rng, put, dtype):
    assert len(repeated(rng, put, (17, 23, 301), dtype, 100)) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_each_time_of_long_sums(rng, put, dtype):
    """So long that several blocks share one."""
    assert len(repeated(rng, put, (192, 256, 65536), dtype, 20)) == 1


def test_shapes_that_do_not_fit(device):
    def tensor(*shape, dtype="float32"):
        return Tensor.empty(shape, dtype, device)

    a, b, out = tensor(2, 3), tensor(4, 5), tensor(2, 5)
    with pytest.raises(longnet.ShapeError, match=r"b: shape \(4, 5\), expected \(3, 5\)"):
        matmul(out, a, b)
    with pytest.raises(longnet.ShapeError, match=r"b: shape \(4, 5\), expected \(4, 3\)"):
        matmul(out, a, b, transpose_b=True)
    with pytest.raises(longnet.ShapeError, match=r"out: shape \(2, 5\), expected \(2, 4\)"):
        matmul(out, a, tensor(4, 3), transpose_b=True)
    with pytest.raises(longnet.ShapeError, match=r"a: shape \(2, 3, 1\), expected two dim"):
        matmul(out, a.reshape(2, 3, 1), b)
    with pytest.raises(longnet.ShapeError, match=r"bias: shape \(2,\), expected \(5,\)"):
        matmul(out, a, tensor(3, 5), bias=tensor(2))
    with pytest.raises(longnet.ShapeError, match=r"c: shape \(5, 2\), expected \(2, 5\)"):
        matmul(out, a, tensor(3, 5), c=tensor(5, 2))
    with pytest.raises(longnet.ShapeError, match=r"dbias: shape \(5,\), expected \(2,\)"):
        matmul(out, tensor(3, 2), tensor(3, 5), dbias=tensor(5), transpose_a=True)
    with pytest.raises(longnet.ConfigError, match="dbias without transpose_a"):
        matmul(out, a, tensor(3, 5), dbias=tensor(2))
    with pytest.raises(longnet.ConfigError, match="bias and dbias"):
        matmul(out, tensor(3, 2), tensor(3, 5), bias=tensor(5), dbias=tensor(2), transpose_a=True)


def test_dtypes_that_do_not_fit(device):
    def tensor(*shape, dtype="float32"):
        return Tensor.empty(shape, dtype, device)

    with pytest.raises(longnet.DTypeError, match="a: dtype int32, expected float32 or"):
        matmul(tensor(2, 2), tensor(2, 2, dtype="int32"), tensor(2, 2))
    with pytest.raises(longnet.DTypeError, match="b: dtype float32, expected float16"):
        matmul(tensor(2, 2), tensor(2, 2, dtype="float16"), tensor(2, 2))
    half = tensor(2, 2, dtype="float16")
    with pytest.raises(longnet.DTypeError, match="out: dtype bfloat16, expected float32 or float"):
        matmul(tensor(2, 2, dtype="bfloat16"), half, half)
    with pytest.raises(longnet.DTypeError, match="bias: dtype float16, expected float32"):
        matmul(tensor(2, 2), half, half, bias=tensor(2, dtype="float16"))


def test_the_op_has_no_kernel_on_the_cpu():
    x = Tensor.empty((2, 2))
    with pytest.raises(longnet.DeviceError, match="matmul: tensors on cpu, expected on a GPU"):
        _core.ops.matmul(x, None, x, x, None, None, False, False)


@pytest.mark.gpu
def test_tensors_on_two_devices():
    x = Tensor.empty((2, 2))
    with pytest.raises(longnet.DeviceError, match="a: device cuda:0, expected cpu"):
        matmul(x, x.to("cuda"), x)
    with pytest.raises(longnet.DeviceError, match=r"a: device cpu.*, expected cuda:0"):
        matmul(x.to("cuda"), x, x)


@pytest.mark.gpu
@pytest.mark.parametrize("first", ["torch", "longnet"])
def test_beside_pytorch(python, first):
    """Whichever takes a product first, the other one's cuBLASLt serves both or is no hindrance."""
    pytest.importorskip("torch")
    ours = (
        "import numpy as np, longnet; from longnet.matmul import matmul\n"
        "x = longnet.Tensor(np.full((8, 8), 2, np.float32)).to('cuda'); y = x.copy()\n"
        "matmul(y, x, x); print(y.to('cpu').numpy().sum())\n"
    )
    theirs = (
        "import torch; t = torch.full((8, 8), 2.0, device='cuda')\n"
        "print(torch.nn.functional.linear(t, t).sum().item())\n"
    )
    longnet.empty_cache("cuda")  # what earlier tests left
    result = python("-c", theirs + ours if first == "torch" else ours + theirs)
    assert result.stdout.split() == ["2048.0", "2048.0"], result.stderr
