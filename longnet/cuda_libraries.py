"""Finds CUDA's libraries where Python packages put them."""

from functools import cache
from importlib import import_module


@cache
def load(name: str) -> None:
    """Load a library of NVIDIA's wheels into this process, where the CUDA backend finds it.

    Where there is no cuda-pathfinder, or it finds no such library, the backend looks for it as the
    system does, and says what is missing.

    Parameters
    ----------
    name : str
        As cuda-pathfinder knows it, such as 'cublasLt'.
    """
    try:
        pathfinder = import_module("cuda.pathfinder")
    except ImportError:
        return
    try:
        pathfinder.load_nvidia_dynamic_lib(name)
    except pathfinder.DynamicLibNotFoundError:
        return
