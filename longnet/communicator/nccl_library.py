"""Finds NCCL, which nothing links to."""

from __future__ import annotations

import ctypes
import os

from longnet import _core, cuda_libraries
from longnet.errors import DeviceError

LIBRARY = "libnccl.so.2"


def load_library() -> str:
    """Load NCCL, where no communicator has before, and return its version.

    NVLink's multicast stays off unless the environment's NCCL_NVLS_ENABLE says otherwise: on hosts
    whose GPUs are shared it can put all of them out of service.

    Raises
    ------
    DeviceError
        There is no NCCL (the message says what to install), or no GPU.
    """
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    cuda_libraries.load("nccl")
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DeviceError(
            f"communication between GPUs needs NCCL: {LIBRARY} does not load ({error}); "
            "pip install 'longnet-native[cuda]'"
        ) from None
    return _core.NcclCommunicator.version()
