"""The one place where matrix products are taken: NumPy's BLAS on the CPU, cuBLASLt on GPUs."""

import numpy as np

from longnet import cuda_libraries
from longnet._core import Tensor, ops


def matmul(
    out: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    bias: Tensor | None = None,
    dbias: Tensor | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
    c: Tensor | None = None,
) -> None:
    """Write ``a @ b + bias + c`` into `out`.

    Sums are in float32 whatever the tensors' dtype, and products of float32 are not rounded to
    TF32.

    Parameters
    ----------
    out : Tensor (M, N)
        The result, of the dtype of `a` or float32; no memory of `a` or `b`.
    a : Tensor (M, K), or (K, M) with `transpose_a`
        float32, float16 or bfloat16, as `b` is.
    b : Tensor (K, N), or (N, K) with `transpose_b`
    bias : Tensor (N,), optional
        Added to every row, of the dtype of `out`.
    dbias : Tensor (M,), optional
        Where the sums over the rows of a transposed `a` are written, of the dtype of `out`: the
        gradient of a bias, beside that of the weight. It needs `transpose_a` and no `bias`.
    transpose_a, transpose_b : bool
        Take the transpose of the matrix given; nothing is copied.
    c : Tensor (M, N), optional
        Of the dtype of `out`, and maybe `out` itself.

    Raises
    ------
    ShapeError, DTypeError
        Shapes or dtypes do not fit each other, or a tensor is not contiguous.
    DeviceError
        The tensors are on different devices, or this machine has no cuBLASLt.
    """
    arguments = (out, dbias, a, b, bias, c, transpose_a, transpose_b)
    if out.device == "cpu":
        ops.matmul.check(*arguments)
        _on_the_cpu(*arguments)
    else:
        cuda_libraries.load("cublasLt")
        ops.matmul(*arguments)


def _on_the_cpu(
    out: Tensor,
    dbias: Tensor | None,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    c: Tensor | None,
    transpose_a: bool,
    transpose_b: bool,
) -> None:
    a, b = _float32(a), _float32(b)
    x, y = a.numpy(), b.numpy()
    x, y = x.T if transpose_a else x, y.T if transpose_b else y
    product = Tensor.empty(out.shape) if c is not None or out.dtype != "float32" else out
    np.matmul(x, y, out=product.numpy())
    if bias is not None:
        ops.bias_add(product, product, _float32(bias))
    if c is not None:
        ops.add(product, product, _float32(c), 1.0)
    if product is not out:
        ops.cast(out, product)
    if dbias is not None:
        sums = Tensor.empty(dbias.shape)
        ops.sum_rows(sums, a)
        ops.cast(dbias, sums)


def _float32(tensor: Tensor) -> Tensor:
    """Return the tensor, or a copy in float32: BLAS has no half precision."""
    if tensor.dtype == "float32":
        return tensor
    copy = Tensor.empty(tensor.shape)
    ops.cast(copy, tensor)
    return copy
