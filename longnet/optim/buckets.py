"""Parameters one after another in flat memory, cut into a slice for each rank.

A bucket's weights and gradients are matrices (ranks, elements of a slice); row r is updated by rank
r alone. Gradients travel as one reduce-scatter, weights come back as one all-gather, both in
place. A parameter begins at a multiple of `ALIGNMENT` elements, and so does a slice, wherever it
cuts a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from longnet._core import Tensor, ops
from longnet.communicator import Communicator, Work
from longnet.errors import LongNetError
from longnet.functional.buffers import zeros
from longnet.nn import Parameter
from longnet.optim.whole import Piece

# Bytes of a bucket's gradients. By their data sheets NVLink moves 32 MB in some 0.1 ms and a
# network of 400 Gbit/s in 0.6 ms, several times what it takes to start a collective; and the bucket
# that is left when the backward pass ends is a short one. A larger parameter has one to itself.
BUCKET_BYTES = 32 << 20

# Elements: 256 bytes, where allocated memory begins too, so that kernels find parameters and
# slices as well aligned as elsewhere, and random words of a slice begin with a whole counter.
ALIGNMENT = 64


def group(parameters: Sequence[Parameter]) -> list[list[Parameter]]:
    """Distribute parameters over buckets, the last first: their gradients are complete first."""
    buckets: list[list[Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        if not buckets or parameter.data.nbytes > room:
            buckets.append([])
            room = BUCKET_BYTES
        buckets[-1].append(parameter)
        room -= parameter.data.nbytes
    return buckets


class _Sum:
    """The sum of a bucket's gradients over the ranks.

    Attributes
    ----------
    begun : bool
        Whether it was started since gradients were last dropped; it takes no more of them then.
    work : Work or None
        What is under way.
    """

    def __init__(self) -> None:
        self.begun = False
        self.work: Work | None = None

    def wait(self) -> None:
        """Complete it: until then the gradients' memory must stay untouched."""
        if self.work is not None:
            self.work.wait()
            self.work = None


class _Place:
    """Where the gradient of a parameter is summed. It knows no bucket, which would be a cycle."""

    def __init__(self, name: str, tensor: Tensor, total: _Sum) -> None:
        self.name = name
        self.tensor = tensor
        self._total = total

    def store(self, gradient: Tensor) -> Tensor:
        """Copy the first gradient, which an op has made, to its place.

        It could be added instead to zeros that lie there already: that spares no pass over the
        gradient, reads the place as well, and costs filling it.
        """
        if self._total.begun:
            raise LongNetError(
                f"{self.name}: found a gradient after those of all ranks were summed, expected "
                "zero_grad() first, and one backward pass inside gradients_final()"
            )
        self._total.wait()  # if gradients were dropped before they had arrived
        ops.cast(self.tensor, gradient)
        return self.tensor


class Bucket:
    """Some parameters. Making it moves their weights into its memory, which they then view.

    Parameters
    ----------
    parameters : sequence of Parameter
    comm : Communicator
    dtype : str
        Of `Parameter.rounded`; there is none where this is float32.
    stochastic : bool
        Whether rounded weights follow from random words, which only the rank that updates a weight
        has drawn, so that they are gathered too. Else they follow from the gathered weights.

    Attributes
    ----------
    parameters : sequence of Parameter
    weights, gradients : Tensor (P, n) float32
        Padding stays 0.
    """

    def __init__(
        self, parameters: Sequence[Parameter], comm: Communicator, dtype: str, stochastic: bool
    ) -> None:
        self.parameters = parameters
        self._comm = comm
        begins, end = [], 0
        for parameter in parameters:
            begins.append(end)
            end += _aligned(parameter.data.size)
        self._row = _aligned(-(-end // comm.size))  # elements of a slice
        shape, like = (comm.size, self._row), parameters[0].data
        self.weights, self.gradients = zeros(shape, like), zeros(shape, like)
        self._moments = {letter: zeros(shape[1:], like) for letter in "mv"}
        self._rounded = None if dtype == "float32" else zeros(shape, like, dtype)
        self._drawn = self._rounded if stochastic else None  # what other ranks cannot compute
        self._sum = _Sum()
        self._places = [
            _Place(p.name, _view(self.gradients, begin, p.shape), self._sum)
            for p, begin in zip(parameters, begins, strict=True)
        ]
        self._parts = [
            list(self._cut(begin, begin + p.data.size))
            for p, begin in zip(parameters, begins, strict=True)
        ]
        for p, begin, place in zip(parameters, begins, self._places, strict=True):
            weight = _view(self.weights, begin, p.shape)
            ops.cast(weight, p.data)
            p.data, p.grad = weight, None
            p.rounded = None if self._rounded is None else _view(self._rounded, begin, p.shape)
            p.store = place.store
        comm.broadcast(self.weights)  # all ranks begin with the same
        self._refresh()
        self.pieces = [
            self._piece(p, first, begin, count)
            for p, parts in zip(parameters, self._parts, strict=True)
            for rank, first, begin, count in parts
            if rank == comm.rank
        ]

    @property
    def slice(self) -> Tensor:
        """This rank's gradients (n,): the sums over all ranks, once they have arrived."""
        return self.gradients[self._comm.rank]

    def send_gradients(self) -> list[Parameter]:
        """Start the sum over the ranks; return the parameters that had a gradient on this one."""
        self._sum.wait()
        present = []
        for p, place in zip(self.parameters, self._places, strict=True):
            if p.grad is None:
                ops.fill(place.tensor, 0.0)
            else:
                present.append(p)
                if p.grad is not place.tensor:  # nobody called `store`
                    ops.cast(place.tensor, p.grad)
            p.grad = None
        self._sum.begun = True
        self._sum.work = self._comm.reduce_scatter(self.slice, self.gradients, blocking=False)
        return present

    def receive_gradients(self) -> None:
        """Complete the sum."""
        self._sum.wait()

    def zero_grad(self) -> None:
        """Drop all gradients, without waiting for ranks that may have failed."""
        self._sum.begun = False
        for p in self.parameters:
            p.grad = None

    def share_weights(self) -> Callable[[], None]:
        """Start sending this rank's slice of the weights; return what completes the others."""
        flat = [self.weights] if self._drawn is None else [self.weights, self._drawn]
        works = [self._comm.all_gather(x, x[self._comm.rank], blocking=False) for x in flat]

        def complete() -> None:
            for work in works:
                if work is not None:
                    work.wait()
            if self._drawn is None:
                self._refresh()

        return complete

    def gather_moment(self, index: int, letter: str) -> np.ndarray | None:
        """Return 'm' or 'v' of a parameter on rank 0, None on the others; every rank calls it."""
        own, parts, rank = self._moments[letter], self._parts[index], self._comm.rank
        if rank != 0:
            sends = [(0, own[b : b + n]) for r, _, b, n in parts if r == rank]
            if sends:
                self._comm.exchange(sends, [])
            return None
        parameter = self.parameters[index]
        whole = Tensor.empty(parameter.data.size, own.dtype, own.device)
        receives = []
        for r, first, begin, count in parts:
            part = whole[first : first + count]
            if r == 0:
                ops.cast(part, own[begin : begin + count])
            else:
                receives.append((r, part))
        if receives:
            self._comm.exchange([], receives)
        return whole.reshape(parameter.shape).to("cpu").numpy()

    def load_moment(self, index: int, letter: str, array: np.ndarray) -> None:
        """Take this rank's parts of 'm' or 'v' of a parameter."""
        own, flat = self._moments[letter], array.reshape(-1)
        for rank, first, begin, count in self._parts[index]:
            if rank == self._comm.rank:
                part = np.ascontiguousarray(flat[first : first + count])
                ops.cast(own[begin : begin + count], Tensor(part).to(own.device))

    def _refresh(self) -> None:
        """Round all weights to the nearest."""
        if self._rounded is not None:
            ops.cast(self._rounded, self.weights)

    def _cut(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut elements [begin, end) of the flat memory where slices end.

        Yields the rank that has a part, the part's first element counted from `begin`, its place in
        the slice, and its length.
        """
        at = begin
        while at < end:
            rank, place = divmod(at, self._row)
            count = min(end - at, self._row - place)
            yield rank, at - begin, place, count
            at += count

    def _piece(self, parameter: Parameter, first: int, begin: int, count: int) -> Piece:
        rank, part = self._comm.rank, slice(begin, begin + count)
        return Piece(
            parameter,
            first,
            weight=self.weights[rank][part],
            m=self._moments["m"][part],
            v=self._moments["v"][part],
            rounded=None if self._drawn is None else self._drawn[rank][part],
            gradient=self.slice[part],
        )


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _view(flat: Tensor, begin: int, shape: tuple[int, ...]) -> Tensor:
    """The elements from `begin` on, in a shape."""
    size = int(np.prod(shape, dtype=np.int64))
    return flat.reshape(flat.size)[begin : begin + size].reshape(shape)
