"""longnet.Tensor: memory shared with NumPy, the buffer protocol and DLPack, views, errors."""

import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

import longnet
from longnet import Tensor, _core

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
    return (rng.random((3, 5, 4)) * 100).astype(DTYPES[request.param])


def test_numpy_round_trip_shares_memory(array):
    tensor = Tensor(array)
    back = tensor.numpy()
    assert back.dtype == array.dtype
    assert tensor.dtype == array.dtype.name
    assert (tensor.shape, tensor.strides) == (array.shape, array.strides)
    np.testing.assert_array_equal(back, array)
    array[1, 2, 3] = 7
    assert back[1, 2, 3] == 7
    assert np.shares_memory(back, array)


@pytest.mark.parametrize(
    "view",
    [lambda a: a[:, ::2], lambda a: a[::-1], lambda a: a.transpose(2, 0, 1), lambda a: a[1:1]],
    ids=["step", "reversed", "transposed", "empty"],
)
def test_strided_views_come_in_and_go_out(array, view):
    tensor = Tensor(view(array))
    np.testing.assert_array_equal(tensor.numpy(), view(array))
    assert tensor.is_contiguous == (view(array).flags.c_contiguous)
    np.testing.assert_array_equal(tensor.copy().numpy(), view(array))
    assert tensor.copy().is_contiguous


def test_indexing_is_numpys(array):
    tensor = Tensor(array)
    keys = [1, -1, slice(1, 3), (slice(None), 2), (0, slice(None, None, -2), -1), (2, 4, 3)]
    for key in keys:
        np.testing.assert_array_equal(tensor[key].numpy(), array[key])
    assert len(tensor) == 3
    assert tensor[2, 4, 3].item() == array[2, 4, 3].item()


def test_reshape_shares_memory(array):
    tensor = Tensor(array).reshape(-1, 10)
    assert tensor.shape == (6, 10)
    assert np.shares_memory(tensor.numpy(), array)
    assert Tensor(array).reshape((60,)).shape == (60,)


def test_buffer_protocol(array):
    tensor = Tensor(array)
    if tensor.dtype == "bfloat16":
        with pytest.raises(BufferError, match="bfloat16 has no buffer format"):
            memoryview(tensor)
    else:
        view = memoryview(tensor)
        assert view.shape == array.shape
        assert view.strides == array.strides
        assert view.tobytes() == array.tobytes()
        np.testing.assert_array_equal(np.asarray(view), array)


def test_dlpack_both_ways(array):
    tensor = Tensor(array)
    assert tensor.__dlpack_device__() == (1, 0)
    if tensor.dtype != "bfloat16":  # NumPy's own DLPack knows no bfloat16
        out = np.from_dlpack(tensor)
        assert np.shares_memory(out, array)
        np.testing.assert_array_equal(out, array)

    class Foreign:
        """An object that is an array by DLPack alone."""

        def __dlpack__(self, **keywords):
            return tensor.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return (1, 0)

    back = Tensor(Foreign())
    assert back.dtype == tensor.dtype
    assert np.shares_memory(back.numpy(), array)


def test_dlpack_of_older_producers(array):
    class Old:
        def __dlpack__(self, stream=None):
            return Tensor(array).__dlpack__()

    np.testing.assert_array_equal(Tensor(Old()).numpy(), array)


def test_dlpack_copy_and_read_only(array):
    tensor = Tensor(array)
    capsule_copy = np.from_dlpack(tensor, copy=True) if tensor.dtype != "bfloat16" else None
    assert capsule_copy is None or not np.shares_memory(capsule_copy, array)
    array.flags.writeable = False
    frozen = Tensor(array)
    assert not frozen.numpy().flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        frozen.__dlpack__()
    if tensor.dtype != "bfloat16":
        assert not np.from_dlpack(frozen).flags.writeable


def test_unused_capsules_release_their_memory():
    before = longnet.memory_stats()["bytes"]
    tensor = Tensor.empty((1000,))
    capsules = [tensor.__dlpack__(), tensor.__dlpack__(max_version=(1, 0))]
    del tensor
    assert longnet.memory_stats()["bytes"] > before
    capsules.clear()
    assert longnet.memory_stats()["bytes"] == before


def test_memory_lives_as_long_as_it_is_seen():
    class Owner(np.ndarray):
        pass

    array = np.arange(12.0, dtype=np.float32).view(Owner)
    gone = weakref.ref(array)
    view = Tensor(array)[3:].numpy()
    del array
    gc.collect()
    assert gone() is not None
    assert view[0] == 3
    del view
    gc.collect()
    assert gone() is None


def test_swapped_and_misaligned_arrays_are_read_but_not_written():
    swapped = np.arange(6, dtype=">f4")
    np.testing.assert_array_equal(Tensor(swapped).numpy(), np.arange(6))
    raw = np.zeros(4 * 5 + 1, np.uint8)
    misaligned = raw[1:].view(np.float32)
    np.testing.assert_array_equal(Tensor(misaligned).numpy(), np.zeros(5))
    with pytest.raises(longnet.ConfigError, match="read-only, expected writable"):
        _core.ops.rms_norm(
            misaligned.reshape(1, 5),
            np.empty(1, np.float32),
            np.ones((1, 5), np.float32),
            np.ones(5, np.float32),
            1e-5,
        )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Tensor(np.zeros(3)), longnet.DTypeError, "float64, expected float32"),
        (lambda: Tensor([1.0]), longnet.DTypeError, "list, expected a longnet.Tensor"),
        (lambda: Tensor.empty(3, "float8"), longnet.DTypeError, "'float8', expected float32"),
        (lambda: Tensor.empty(3, device="tpu"), longnet.DeviceError, "'tpu', expected cpu"),
        (lambda: Tensor.empty(3, device="cuda:99"), longnet.DeviceError, "device cuda:99"),
        (lambda: Tensor.empty((-1,)), longnet.ShapeError, r"\(-1,\): negative"),
        (lambda: Tensor.empty((1 << 40, 1 << 40)), longnet.ShapeError, "2\\^63 bytes"),
        (lambda: Tensor.empty(1 << 58), longnet.OutOfMemoryError, "bytes asked for"),
        (lambda: Tensor.empty((1,) * 9), longnet.ShapeError, "9 dimensions, expected at most 8"),
        (lambda: Tensor(np.zeros((1,) * 9, "f4")), longnet.ShapeError, "9 dimensions"),
        (lambda: Tensor.empty((2, 3)).reshape(4), longnet.ShapeError, "not as many elements"),
        (lambda: Tensor.empty((2, 3)).reshape(-1, 0), longnet.ShapeError, "not as many"),
        (lambda: Tensor.empty((2, 3))[:, 1].reshape(2), longnet.ShapeError, "not contiguous"),
        (lambda: Tensor.empty((2, 3))[2], IndexError, "index 2, dimension 0 has 2 elements"),
        (lambda: Tensor.empty((2, 3))[0, 0, 0], IndexError, "3 indices for a tensor of 2"),
        (lambda: Tensor.empty((2, 3))["a"], TypeError, "integers and slices"),
        (lambda: len(Tensor.empty(())), TypeError, "no length"),
    ],
)
def test_errors_name_what_was_found_and_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("shape", [np.int64(6), np.array([2, 3]), (np.int8(2), 3), [6]])
def test_shapes_of_numpys_integers(shape):
    assert Tensor.empty(shape).shape == np.zeros(shape).shape
    assert Tensor.empty(6).reshape(shape).shape == np.zeros(shape).shape


def test_ops_take_numpys_numbers_and_name_what_is_none():
    x, dropout = Tensor(np.ones(64, np.float32)), _core.ops.dropout
    found, expected = Tensor.empty(64), Tensor.empty(64)
    dropout(expected, x, 0.5, 7)
    dropout(found, x, np.float32(0.5), np.uint64(7))
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    with pytest.raises(TypeError, match=r"^seed: 1\.5, expected an integer$"):
        dropout(found, x, 0.5, 1.5)
    with pytest.raises(longnet.ConfigError, match=r"^seed: -1, expected 0 to 2\^64 - 1$"):
        dropout(found, x, 0.5, -1)
    with pytest.raises(TypeError, match=r"^p: 'a', expected a number$"):
        dropout(found, x, "a", 1)
    with pytest.raises(longnet.ConfigError, match=r"^p: 1000.*, expected a number of 64 bits$"):
        dropout(found, x, 10**400, 1)
    with pytest.raises(longnet.ConfigError, match=r"^-3 threads, expected 1 to"):
        longnet.set_num_threads(-3)
    with pytest.raises(TypeError, match=r"^threads: '2', expected an integer$"):
        longnet.set_num_threads("2")


def test_the_nth_allocation_can_be_made_to_fail():
    _core.alloc_fail_at(2)
    first = Tensor.empty(4)
    with pytest.raises(longnet.OutOfMemoryError, match="16 bytes asked for"):
        Tensor.empty(4)
    assert Tensor.empty(4).shape == first.shape


def test_borrowed_memory_goes_back_with_the_tensor():
    array = np.arange(6, dtype=np.float32)
    tensor = Tensor.borrow(array)
    array[1] = 7
    assert tensor.numpy()[1] == 7
    owner = weakref.ref(array)
    del array
    assert owner() is not None
    del tensor
    assert owner() is None
    with pytest.raises(longnet.DTypeError, match="borrow: int, expected a"):
        Tensor.borrow(3)


def test_memory_is_counted():
    longnet.reset_peak_memory()
    before = longnet.memory_stats()["bytes"]
    tensor = Tensor.empty((1000, 1000))
    assert longnet.memory_stats()["bytes"] == before + tensor.nbytes
    del tensor
    stats = longnet.memory_stats()
    assert stats["bytes"] == before
    assert stats["peak_bytes"] == before + 4_000_000


def test_ops_refuse_wrong_calls():
    op = _core.ops.rms_norm
    assert repr(op) == (
        "<op rms_norm(y, rstd, x, weight, eps, sum=None, residual=None, gelu=False)>"
    )
    with pytest.raises(TypeError, match="argument 'rstd' is missing"):
        op(Tensor.empty(1))
    with pytest.raises(TypeError, match="no argument 'why'"):
        op(why=1)
    with pytest.raises(TypeError, match="9 arguments, expected at most 8"):
        op(1, 2, 3, 4, 5, 6, 7, 8, 9)
    with pytest.raises(TypeError, match="'y' given twice"):
        op(Tensor.empty(1), y=1)
