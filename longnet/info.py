"""What this installation consists of and what it computes with."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import longnet
from longnet import _core, blas

_PACKAGES = ("numpy", "ml-dtypes", "safetensors", "tokenizers")


def collect() -> dict[str, Any]:
    """Gather versions, and what this process computes with.

    Returns
    -------
    dict
        Strings, numbers, booleans and dictionaries of them; None for what is not there or unknown.
    """
    library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "longnet": longnet.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": {
            "instruction_set": _core.cpu_backend(),
            "threads": _core.num_threads(),
            "usable_processors": _usable_processors(),
        },
        "blas": {
            "name": library.get("name"),
            "version": library.get("version"),
            "threads": blas.num_threads(),
        },
        "gpu": _gpu(),
    }


def describe(info: dict[str, Any]) -> str:
    """What `collect` gives, as lines for people."""
    cpu, gpu = info["cpu"], info["gpu"]
    rows = {
        "longnet": info["longnet"],
        "python": f"{info['python']}, {info['platform']}",
        **{name: found or "not installed" for name, found in info["packages"].items()},
        "cpu": f"{cpu['instruction_set']} kernels, {cpu['threads']} threads on "
        f"{cpu['usable_processors']} processors",
        "blas": _describe_blas(**info["blas"]),
        "gpu": ", ".join(gpu["devices"]) if gpu["used"] else f"not used: {gpu['reason']}",
    }
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows.items())


def _describe_blas(name: str | None, version: str | None, threads: int | None) -> str:
    text = " ".join(filter(None, (name, version))) or "unknown"
    return text if threads is None else f"{text}, {threads} threads"


def _gpu() -> dict[str, Any]:
    used, reason, details = _core.cuda_status()
    return {"used": used, "reason": reason, "devices": [d["name"] for d in details["devices"]]}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _usable_processors() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
