"""Processes that make examples ahead of their use."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Protocol, TypeVar

from longnet.errors import DataError

Request = tuple[int, ...]  # arguments of `Maker.make`: a task's are seed, index and length
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Maker(Protocol[T_co]):
    """What makes the same of the same whole numbers: a task, or something that makes batches."""

    name: str

    @property
    def make(self) -> Callable[..., T_co]:
        """Makes one example."""


class Workers(Generic[T]):
    """Makes examples in other processes; they are what one process makes.

    The processes end with this object, and when the process that made it ends in any way.

    Parameters
    ----------
    task : Task, or another maker
        Makes the examples; each process gets a copy.
    count : int
        Processes, 1 or more.
    """

    def __init__(self, task: Maker[T], count: int) -> None:
        self._name = task.name
        # A fork of a process that has threads or a GPU is not safe.
        self._pool = ProcessPoolExecutor(
            count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(task,)
        )
        self._futures: dict[Request, Future[T]] = {}
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def take(self, requests: Sequence[Request], following: Sequence[Request]) -> list[T]:
        """Return the examples that `requests` name, and have `following` made meanwhile.

        Raises
        ------
        DataError
            A process died.
        """
        made = self._futures
        try:
            self._futures = {
                request: made.get(request) or self._pool.submit(_make, *request)
                for request in (*requests, *following)
            }
            return [self._futures.pop(request).result() for request in requests]
        except BrokenProcessPool as error:
            raise DataError(
                f"task {self._name}: a process that makes examples has ended, expected it to live"
            ) from error


_task: Maker[Any]  # of a worker process


def _begin(task: Maker[Any]) -> None:
    global _task
    _task = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(*request: int) -> Any:
    return _task.make(*request)
