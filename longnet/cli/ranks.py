"""The ranks of a command that a launcher has started many times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longnet.communicator import Communicator
    from longnet.config import TrainConfig


def is_first() -> bool:
    """Whether this process is the launcher's rank 0, or has no launcher."""
    from longnet.communicator import environment

    return environment.read(os.environ).rank == 0


@contextmanager
def joined(settings: TrainConfig) -> Iterator[Communicator | None]:
    """All ranks of the command; None where this process is the only one.

    Leaving the ``with`` block waits for the others, and by an exception tells them of it.
    """
    from longnet.communicator import Communicator, environment

    if environment.read(os.environ).size == 1:
        yield None
        return
    with Communicator.from_environment(settings.device, settings.timeout) as comm:
        yield comm
        comm.barrier()
