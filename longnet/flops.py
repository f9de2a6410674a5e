"""Arithmetic of training, and what a GPU could do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longnet._core import cuda_status

if TYPE_CHECKING:
    from longnet.model import LongNet

# Half precision by tensor cores, dense, TFLOP/s, by a part of the GPU's name; from data sheets.
_PEAK_TFLOPS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "GH200": 989,
    "H800": 989,
    "A100": 312,
    "A800": 312,
}


def flops_per_token(model: LongNet, sequence_length: int) -> float:
    """Count the floating-point operations that training needs for one token.

    A product and its addition are two. Each weight of a matrix counts 6, each (query, key) pair of
    a head 14 D; what is computed again in the backward pass does not count.

    Parameters
    ----------
    model : LongNet
    sequence_length : int
        N.
    """
    matrices = sum(p.data.size for p in model.parameters() if p.data.ndim == 2)
    if model.output is not model.embedding.weight:
        matrices -= model.embedding.weight.data.size
    mixing = sum(block.mixer.flops(sequence_length) for block in model.blocks)
    return 6.0 * matrices + mixing / sequence_length


def peak_flops(device: str, dtype: str) -> float | None:
    """Operations a second that a device's tensor cores could do; None where that is not known."""
    if device == "cpu" or dtype == "float32":
        return None
    index = int(device.partition(":")[2] or 0)
    name = cuda_status()[2]["devices"][index]["name"]
    known = [key for key in _PEAK_TFLOPS if key in name]
    return _PEAK_TFLOPS[max(known, key=len)] * 1e12 if known else None
