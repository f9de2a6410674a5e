"""What is checked of a communicator's arguments, and of what the ranks tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from longnet._core import Tensor
from longnet.errors import ConfigError, DeviceError, DTypeError, ShapeError

Array = Tensor | NDArray[Any]


def tensor(name: str, label: str, x: Array, device: str) -> Tensor:
    """Return the argument `label` of the method `name`: contiguous and on `device`."""
    found = x if isinstance(x, Tensor) else Tensor(x)
    if found.device != device:
        raise DeviceError(f"{name}: {label}: found a tensor on {found.device}, expected {device}")
    if not found.is_contiguous:
        raise ShapeError(
            f"{name}: {label}: found strides {found.strides} of shape {found.shape}, "
            "expected a contiguous tensor"
        )
    return found


def like(name: str, label: str, found: Tensor, shape: tuple[int, ...], other: Tensor) -> None:
    """Check that `found` has `shape` and the dtype of `other`."""
    if found.shape != shape or found.dtype != other.dtype:
        raise (ShapeError if found.shape != shape else DTypeError)(
            f"{name}: {label}: found {found.dtype} {found.shape}, expected {other.dtype} {shape}"
        )


def writable(name: str, label: str, x: Tensor) -> NDArray[Any]:
    """Return the memory of a host tensor that will be written."""
    memory = x.numpy()
    if not memory.flags.writeable:
        raise ConfigError(f"{name}: {label}: read-only, expected writable memory")
    return memory


def to_itself(
    name: str, rank: int, sends: list[tuple[int, Tensor]], receives: list[tuple[int, Tensor]]
) -> None:
    """Check that what a rank sends to itself is what it receives from itself."""
    sent, received = ([x for peer, x in each if peer == rank] for each in (sends, receives))
    if len(sent) != len(received):
        raise ShapeError(
            f"{name}: found {len(received)} tensors received from this rank {rank}, "
            f"expected {len(sent)} as are sent to it"
        )
    for x, out in zip(sent, received, strict=True):
        like(name, f"received from this rank {rank}", out, x.shape, x)


def same(what: str, values: Sequence[object]) -> None:
    """Check that all ranks have the same value; the error is the same on every rank."""
    groups: list[tuple[object, list[int]]] = []
    for rank, found in enumerate(values):
        ranks = next((ranks for other, ranks in groups if other == found), None)
        if ranks is None:
            groups.append((found, [rank]))
        else:
            ranks.append(rank)
    groups.sort(key=lambda group: -len(group[1]))  # the value of most ranks, else of the lowest
    (expected, having), *others = groups
    if others:
        found = ", ".join(f"{value!r} on {ranks_named(ranks)}" for value, ranks in others)
        raise ConfigError(
            f"{what}: found {found}, expected {expected!r} as on {ranks_named(having)}"
        )


def ranks_named(ranks: Sequence[int]) -> str:
    """Name ranks in a message: 'rank 2', 'ranks 0, 1, 3'."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
