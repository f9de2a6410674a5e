"""The threads that NumPy's matrix products take, in the library that they come from."""

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_MAPS = Path("/proc/self/maps")  # what this process has loaded; Linux only
_NAME = re.compile(r"/\S*/lib[^/\s]*(?:openblas|mkl_rt)[^/\s]*\.so\S*")
_PAIRS = (  # of functions: get and set
    *(
        (f"{prefix}_get_num_threads{suffix}", f"{prefix}_set_num_threads{suffix}")
        for prefix in ("scipy_openblas", "openblas")
        for suffix in ("64_", "")
    ),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
)

_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"  # read once, when the library is loaded; 2^n cycles
_SHORT = "14"


def sleep_after_products() -> None:
    """Have OpenBLAS's threads sleep some 10 microseconds after a product, not 0.1 seconds.

    Until then they spin, and share the processors with whatever follows the product: a training
    step on two processors takes a fifth longer. Changes nothing where the variable
    ``OPENBLAS_THREAD_TIMEOUT`` is set, or where NumPy was imported before.
    """
    if "numpy" not in sys.modules:
        os.environ.setdefault(_TIMEOUT, _SHORT)


def num_threads() -> int | None:
    """Return the number of threads, None where it is not known: no OpenBLAS or MKL, or no Linux."""
    found = [library[read]() for library, read, _ in _libraries()]
    return max(found, default=None)


def set_num_threads(n: int) -> None:
    """Set the number of threads, where it can be.

    Where `num_threads` does not know it, variables such as ``OMP_NUM_THREADS`` do this, set before
    the process starts.
    """
    for library, _, write in _libraries():
        library[write](n)


@cache
def _libraries() -> tuple[tuple[ctypes.CDLL, str, str], ...]:
    """The libraries that are loaded, and the names of their functions."""
    return tuple(_find())


def _find() -> Iterator[tuple[ctypes.CDLL, str, str]]:
    try:
        paths = set(_NAME.findall(_MAPS.read_text()))
    except OSError:
        return
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)  # the one that is loaded
        except OSError:
            continue
        pair = next((p for p in _PAIRS if hasattr(library, p[0]) and hasattr(library, p[1])), None)
        if pair is not None:
            yield library, *pair
