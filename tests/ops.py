"""What the tests of single ops share: calls with poisoned outputs, and what every op must do."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest

import longnet
from longnet import _core

BFLOAT16 = ml_dtypes.bfloat16
FLOATS = [np.float32, np.float16, BFLOAT16]


def poison(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """An output that no op has written yet."""
    return np.full(shape, np.nan, dtype)


@dataclass
class Call:
    """Arguments of an op by name; the outputs are left alone, each call writes copies of them.

    They are NumPy arrays here, and copies of them on `device` where that is a GPU.
    """

    device: ClassVar[str] = "cpu"  # the fixture `device` sets it

    op: str
    outputs: dict[str, np.ndarray | None]
    inputs: dict[str, Any]

    def __call__(self, **changes: Any) -> tuple[np.ndarray, ...]:
        """The outputs, with some arguments changed."""
        outputs = {
            name: array if array is None else array.copy() for name, array in self.outputs.items()
        }
        self._run({**outputs, **self.inputs, **changes})
        return tuple(array for array in outputs.values() if array is not None)

    def _run(self, arguments: dict[str, Any]) -> None:
        op = getattr(_core.ops, self.op)
        if self.device == "cpu":
            op(**arguments)
            return
        # An array given twice is one tensor, as ops that work in place want it.
        tensors = {
            id(a): longnet.Tensor(a).to(self.device)
            for a in arguments.values()
            if isinstance(a, np.ndarray)
        }
        op(**{name: tensors.get(id(a), a) for name, a in arguments.items()})
        for name in self.outputs:
            if arguments[name] is not None:
                arguments[name][...] = tensors[id(arguments[name])].to("cpu").numpy()

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, value in {**self.outputs, **self.inputs}.items():
            if isinstance(value, np.ndarray):
                yield name, value


def largest(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0.0))


def assert_close(
    computed: np.ndarray,
    exact: np.ndarray,
    tolerance: float = 1e-6,
    term: np.ndarray | None = None,
) -> None:
    """The largest error is within `tolerance` of the largest value, and rounding's own error.

    `term` is how large the terms of the sum are, where they may cancel. In half precision the
    error may be twice what rounding the exact value gives.
    """
    assert computed.shape == exact.shape
    limit = tolerance * largest(exact if term is None else term)
    if computed.dtype.itemsize == 2:
        limit += 2 * largest(exact.astype(computed.dtype).astype(float) - exact)
    assert largest(computed.astype(float) - exact) <= limit


def assert_gradients(
    forward: Callable[..., np.ndarray],
    inputs: Mapping[str, np.ndarray],
    doutput: np.ndarray,
    gradients: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> None:
    """A reference's gradients are the slopes of its forward, along a random line in each input."""
    for name, gradient in gradients.items():
        direction = rng.standard_normal(gradient.shape)

        def along(step: float, name: str = name, direction: np.ndarray = direction) -> float:
            moved = {**inputs, name: inputs[name] + step * direction}
            return float((forward(**moved) * doutput).sum())

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        size = float(np.abs(gradient * direction).sum())
        assert abs(slope - float((gradient * direction).sum())) <= 1e-7 * size, name


def check_contract(call: Call, any_shape: tuple[str, ...] = ()) -> None:
    """What holds for every op: the same bits for any number of threads, and named errors.

    `call` is large enough to occupy several threads; `any_shape` names the arguments whose number
    of dimensions is free.
    """
    check_threads(call)
    check_memory_errors(call)
    for name, array in call.arrays():
        check_bad_array(call, name, array, any_shape)
    for name in call.outputs if call.device == "cpu" else ():
        read_only = call.outputs[name].copy()
        read_only.flags.writeable = False
        expected = f"{call.op}: {name}: read-only, expected writable memory"
        with pytest.raises(longnet.ConfigError, match=expected):
            call(**{name: read_only})


def check_threads(call: Call) -> None:
    before = longnet.num_threads()
    try:
        runs = []
        for threads in (1, 2, 4):
            longnet.set_num_threads(threads)
            runs.append([output.tobytes() for output in call()])
    finally:
        longnet.set_num_threads(before)
    assert runs[1] == runs[0]
    assert runs[2] == runs[0]


def check_memory_errors(call: Call) -> None:
    """Every allocation that an op makes may fail; on a GPU those of its arguments do too."""
    held = longnet.memory_stats(call.device)["bytes"]
    most = 10 if call.device == "cpu" else 100
    for n in range(1, most):
        try:
            _core.alloc_fail_at(n)
            call()
            return
        except longnet.OutOfMemoryError:
            pass
        finally:
            _core.alloc_fail_at(0)
        assert longnet.memory_stats(call.device)["bytes"] == held
    pytest.fail(f"{most} allocations")


def check_offsets(call: Call) -> None:
    """Tensors may begin at any element, and what lies beside them stays as it is."""
    rooms = {
        name: longnet.Tensor(np.pad(array.reshape(-1), 1)).to(call.device)
        for name, array in call.arrays()
    }
    tensors = {name: rooms[name][1:-1].reshape(array.shape) for name, array in call.arrays()}
    getattr(_core.ops, call.op)(**{**call.outputs, **call.inputs, **tensors})
    outputs = [name for name, array in call.outputs.items() if array is not None]
    for name, expected in zip(outputs, call(), strict=True):
        found = rooms[name].to("cpu").numpy()
        assert_close(found[1:-1].reshape(expected.shape), expected.astype(float))
        assert not found[[0, -1]].any()


def check_bad_array(call: Call, name: str, array: np.ndarray, any_shape: tuple[str, ...]) -> None:
    with pytest.raises(longnet.DTypeError, match=f"{call.op}: {name}: dtype uint8, expected"):
        call(**{name: np.zeros(array.shape, np.uint8)})
    if name not in any_shape:
        with pytest.raises(longnet.ShapeError, match=f"{call.op}: "):
            call(**{name: array[None]})
    twice = np.repeat(array, 2, axis=-1)
    gaps = twice[..., ::2]
    if not gaps.flags.c_contiguous:
        if call.device != "cpu":
            every_second = *[slice(None)] * (twice.ndim - 1), slice(None, None, 2)
            gaps = longnet.Tensor(twice).to(call.device)[every_second]
        with pytest.raises(longnet.ShapeError, match=f"{call.op}: {name}: strides .*, expected"):
            call(**{name: gaps})
