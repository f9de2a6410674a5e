"""mpi4py: loading it, and ending MPI without waiting for ranks that are gone."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from functools import cache
from typing import Any, Self

from longnet.errors import CommunicatorError

INSTALL = "pip install 'longnet-native[parallel]', or mpi4py with any MPI library"
FINALIZE_TIMEOUT = 30.0  # seconds for all ranks to come to their end
LAST_WORDS = 1.0  # seconds for the other ranks to say why they fail, before MPI kills them


class MpiLibrary:
    """MPI in this process.

    Attributes
    ----------
    world : mpi4py.MPI.Comm
        All ranks, with messages apart from those of other users of MPI.
    failed : bool
        Ranks may be gone: MPI cannot be ended in the regular way.
    abandoned : list
        What must stay in memory because MPI may still read or write it.
    next_identity : int
        Of the communicators that this rank has been part of.
    """

    @classmethod
    @cache
    def load(cls) -> Self:
        """Start MPI.

        Raises
        ------
        CommunicatorError
            mpi4py or the MPI library is missing: says what to install.
        """
        try:
            import mpi4py

            ours = "mpi4py.MPI" not in sys.modules
            if ours:
                mpi4py.rc.finalize = False  # it would wait for dead ranks
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise CommunicatorError(f"MPI is missing ({error}): {INSTALL}") from None
        return cls(MPI, ours)

    def __init__(self, mpi: Any, ours: bool) -> None:
        self._mpi = mpi
        self._ours = ours
        self.Exception = mpi.Exception
        self.world = mpi.COMM_WORLD.Dup()
        self.largest_tag = self.world.Get_attr(mpi.TAG_UB)
        self.failed = False
        self.abandoned: list[Any] = []
        self.next_identity = 1
        atexit.register(self._finalize)

    def test(self, requests: list[Any]) -> bool:
        """Whether all requests are complete."""
        return self._mpi.Request.Testall(requests)

    def _finalize(self) -> None:
        """End MPI, if the others can be expected to do so too."""
        if not self.failed and self._ours:
            threading.Thread(target=_watch, daemon=True).start()
            self._mpi.Finalize()
        elif self.failed and not self._ours:
            time.sleep(LAST_WORDS)
            self.world.Abort(1)  # mpi4py would finalize, and wait for ever


def _watch() -> None:
    time.sleep(FINALIZE_TIMEOUT)
    print(f"longnet: MPI did not end within {FINALIZE_TIMEOUT:g} s", file=sys.stderr, flush=True)
    os._exit(1)
