"""What a measurement needs of a device; one class a kind of device."""

import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import longnet
from longnet import _core
from longnet.errors import DeviceError

# NumPy's BLAS threads may spin for a while after a product, and would share the processors.
REST_SECONDS, MOST_RESTS = 0.02, 50


@dataclass
class Run:
    """One call: how long it took, what it gave, and the most memory it held beside inputs and
    outputs, as a share of these."""

    seconds: float
    extra: float
    results: tuple[np.ndarray, ...]


class CpuDevice:
    """NumPy arrays and the CPU backend."""

    name = "cpu"

    def __init__(self) -> None:
        self._matrices: list[np.ndarray] = []  # of the product: two factors and the result

    def hardware(self) -> dict[str, object]:
        """What the numbers depend on."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {
            "processor": processor(),
            "threads": longnet.num_threads(),
            "instruction_set": _core.cpu_backend(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "blas": f"{blas['name']} {blas['version']}",
            "longnet": longnet.__version__,
        }

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array of normal numbers."""
        return rng.standard_normal(shape, dtype=np.float32)

    def run(self, call: Callable[..., tuple], *inputs: np.ndarray) -> Run:
        """Calls it and waits for the results."""
        before = longnet.memory_stats()["bytes"]
        longnet.reset_peak_memory()
        begin = time.perf_counter()
        results = call(*inputs)
        seconds = time.perf_counter() - begin
        outputs = sum(x.nbytes for x in results)
        extra = longnet.memory_stats()["peak_bytes"] - before - outputs
        return Run(seconds, extra / (outputs + sum(x.nbytes for x in inputs)), results)

    def product_seconds(self, size: int) -> float:
        """How long NumPy's float32 product of two square matrices takes."""
        if not self._matrices or len(self._matrices[0]) != size:
            rng = np.random.default_rng()
            self._matrices = [self.random(rng, (size, size)) for _ in range(3)]
        a, b, out = self._matrices
        begin = time.perf_counter()
        np.matmul(a, b, out=out)
        seconds = time.perf_counter() - begin
        _rest()
        return seconds


def _rest() -> None:
    """Waits until no thread of this process is busy, a second at most."""
    for _ in range(MOST_RESTS):
        begin = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - begin < REST_SECONDS / 10:
            return


def processor() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} processors)" if names else platform.processor()


def gpu_hardware() -> dict[str, object]:
    """What numbers of the first GPU depend on.

    Raises
    ------
    DeviceError
        There is none.
    """
    _, reason, details = _core.cuda_status()
    if not details["devices"]:
        raise DeviceError(f"found no GPU ({reason}), expected one")
    return {
        "gpu": details["devices"][0]["name"],
        "driver": driver(),
        "cuda": details["runtime"],
        "longnet": longnet.__version__,
    }


def driver() -> str:
    """The version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return lines.split("\n")[0]
