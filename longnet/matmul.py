"""The one place where matrix products are taken: NumPy's BLAS for tensors on the CPU."""

import numpy as np

from longnet._core import Tensor, ops
from longnet.errors import DeviceError, ShapeError


def matmul(
    out: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    accumulate: bool = False,
) -> None:
    """Write ``a @ b`` into `out`, or add it to `out`.

    Sums are in float32 whatever the tensors' dtype.

    Parameters
    ----------
    out : Tensor (M, N)
        The result; no memory of `a` or `b`.
    a : Tensor (M, K), or (K, M) with `transpose_a`
        float32, float16 or bfloat16, as all three are.
    b : Tensor (K, N), or (N, K) with `transpose_b`
    transpose_a, transpose_b : bool
        Take the transpose of the matrix given; nothing is copied.
    accumulate : bool
        Add to what `out` holds.

    Raises
    ------
    ShapeError
        The shapes do not fit each other.
    DeviceError
        A tensor is not on the CPU.
    """
    for name, tensor in (("out", out), ("a", a), ("b", b)):
        if tensor.device != "cpu":
            raise DeviceError(f"matmul: {name} on {tensor.device}, expected cpu")
        if tensor.ndim != 2:
            raise ShapeError(f"matmul: {name} of shape {tensor.shape}, expected two dimensions")
    left = a.shape[::-1] if transpose_a else a.shape
    right = b.shape[::-1] if transpose_b else b.shape
    if left[1] != right[0] or out.shape != (left[0], right[1]):
        raise ShapeError(
            f"matmul: {left} times {right} into {out.shape}, expected (M, K) times (K, N) into "
            "(M, N)"
        )
    x, y = _float32(a).numpy(), _float32(b).numpy()
    x, y = x.T if transpose_a else x, y.T if transpose_b else y
    if out.dtype == "float32" and not accumulate:
        np.matmul(x, y, out=out.numpy())
        return
    product = Tensor.empty(out.shape)
    np.matmul(x, y, out=product.numpy())
    if accumulate:
        ops.add(product, product, _float32(out), 1.0)
    ops.cast(out, product)


def _float32(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy in float32: BLAS has no half precision."""
    if tensor.dtype == "float32":
        return tensor
    copy = Tensor.empty(tensor.shape)
    ops.cast(copy, tensor)
    return copy
