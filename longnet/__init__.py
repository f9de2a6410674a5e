"""LongNet: dilated attention and long-sequence training in C and CUDA over NumPy buffers."""

from importlib import import_module

from longnet import blas, errors

blas.sleep_after_products()  # before NumPy is imported

from longnet._core import (
    Event,
    Stream,
    Tensor,
    empty_cache,
    memory_stats,
    num_threads,
    reset_peak_memory,
    set_num_threads,
    synchronize,
)
from longnet.attention import DilatedAttention
from longnet.errors import (
    CheckpointError,
    CommunicatorError,
    ConfigError,
    DataError,
    DeviceError,
    DivergenceError,
    DTypeError,
    LongNetError,
    OutOfMemoryError,
    ShapeError,
)

__version__ = "0.1.0"

# Imported when first asked for, so that `import longnet` stays quick.
_LAZY = {
    "Communicator": "longnet.communicator",
    "Config": "longnet.config",
    "LongNet": "longnet.model",
    "Trainer": "longnet.train",
}

__all__ = [
    "CheckpointError",
    "Communicator",
    "CommunicatorError",
    "Config",
    "ConfigError",
    "DTypeError",
    "DataError",
    "DeviceError",
    "DilatedAttention",
    "DivergenceError",
    "Event",
    "LongNet",
    "LongNetError",
    "OutOfMemoryError",
    "ShapeError",
    "Stream",
    "Tensor",
    "Trainer",
    "empty_cache",
    "errors",
    "memory_stats",
    "num_threads",
    "reset_peak_memory",
    "set_num_threads",
    "synchronize",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'longnet' has no attribute {name!r}")
