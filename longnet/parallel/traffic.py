"""Pieces on their way to a device and results on their way back, while it works on other pieces."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from longnet._core import Event, Stream, Tensor
from longnet.parallel.arrays import rows_of

Sink = Callable[[int, Tensor, Tensor], None]


class Inputs:
    """Rows of q, k and v on the device where they are worked on."""

    def __init__(self, device: str, q: Any, k: Any, v: Any) -> None:
        self._device = device
        self._arrays = {"q": q, "k": k, "v": v}
        self._stream = None if device == "cpu" else Stream(device)

    def fetch(self, begin: int, end: int) -> list[Tensor]:
        """Begin to bring rows [begin, end); `arrive` says when they may be used."""
        found = [rows_of(name, x, begin, end) for name, x in self._arrays.items()]
        if self._stream is None:
            return [x.to(self._device) for x in found]
        return [x.to(self._device, stream=self._stream) for x in found]

    def arrive(self) -> None:
        """Make the current stream wait for all that was fetched."""
        if self._stream is not None:
            Stream.current(self._device).wait(self._stream)


class Results:
    """Where output and LSE of the pieces go: to arrays, and to a function."""

    def __init__(self, device: str, out: Any, lse: Any, sink: Sink | None) -> None:
        self._device = device
        self._out = out
        self._lse = lse
        self._sink = sink
        self._stream = None if device == "cpu" else Stream(device)
        self._leaving: deque[tuple[int, Tensor, Tensor, Event | None]] = deque()

    def put(self, begin: int, out: Tensor, lse: Tensor) -> None:
        """Hand out rows from `begin` on, and begin to copy them where they are kept."""
        if self._sink is not None:
            self._sink(begin, out, lse)
        if self._stream is None:
            self._leaving.append((begin, out, lse, None))
            return
        if self._out is not None:
            out = out.to("cpu", stream=self._stream)
        if self._lse is not None:
            lse = lse.to("cpu", stream=self._stream)
        self._stream.wait(Stream.current(self._device))
        self._leaving.append((begin, out, lse, self._stream.record()))

    def finish(self, behind: int) -> None:
        """Wait until at most `behind` pieces are worked on, and write the others."""
        while len(self._leaving) > behind:
            begin, out, lse, event = self._leaving.popleft()
            if event is not None:
                event.synchronize()
            end = begin + out.shape[1]
            if self._out is not None:
                self._out[:, begin:end] = out.numpy()
            if self._lse is not None:
                self._lse[:, :, begin:end] = lse.numpy()
