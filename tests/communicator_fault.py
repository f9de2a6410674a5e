"""One rank of MPI among whom one fails: writes what the others are told, and after what time.

Arguments: folder, method, rank that fails, how, at which call, timeout.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

import longnet

folder, method, victim, how, moment, timeout = sys.argv[1:]
communicator = longnet.Communicator.from_environment("cpu", timeout=float(timeout))
rank, size = communicator.rank, communicator.size
x = np.ones((size, 100_000), np.float32)
out = np.empty((size, size, 100_000), np.float32)
ring = [((rank + 1) % size, x)], [((rank - 1) % size, out[0])]
CALLS = {
    "all_gather": lambda: communicator.all_gather(out, x),
    "all_reduce": lambda: communicator.all_reduce(x, "max"),
    "exchange": lambda: communicator.exchange(*ring),
    "barrier": communicator.barrier,
    "gather_objects": lambda: communicator.gather_objects(rank),
}


def fail() -> None:
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill later":  # in the midst of a call
            timer = threading.Timer(0.01, os.kill, [os.getpid(), signal.SIGKILL])
            timer.start()
        case "sleep":
            time.sleep(float(timeout) + 3)
            os._exit(1)
        case "raise":
            raise ValueError("a bad batch")
        case "close":
            communicator.close()
            sys.exit(0)


communicator.barrier()
start = time.monotonic()
try:
    for call in range(1_000_000):
        if call == int(moment):
            start = time.monotonic()
            if rank == int(victim):
                fail()
        CALLS[method]()
except longnet.CommunicatorError as error:
    Path(folder, f"{rank}.txt").write_text(f"{time.monotonic() - start:.3f} {error}")
    sys.exit(7)
