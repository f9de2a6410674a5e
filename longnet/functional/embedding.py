"""Rows of a table."""

import numpy as np

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import as_tensor, check_range, empty, zeros


def embedding(
    tokens: np.ndarray | Tensor, weight: Variable, scale: float = 1.0, dtype: str | None = None
) -> Variable:
    """Look up ``scale * weight[token]`` for every token.

    Parameters
    ----------
    tokens : array or Tensor (...), int32 or int64
        Rows of `weight`, 0 to V - 1. Those on the host are checked there and copied to the device
        of `weight`; of those on a GPU, what is out of range makes rows of NaN.
    weight : Variable (V, E)
    scale : float
        A factor of the result.
    dtype : str, optional
        Of the result; that of `weight` unless given, and any float where that is float32.

    Returns
    -------
    Variable (..., E)

    Raises
    ------
    ConfigError
        A token is out of range.
    """
    tokens, table = as_tensor(tokens), weight.data
    if tokens.device != table.device:
        check_range("embedding", "token", tokens.numpy(), table.shape[0])
        tokens = tokens.to(table.device)
    out = empty((*tokens.shape, table.shape[-1]), table, dtype)
    ops.embedding(out, table, tokens, scale)

    def backward(dout: Tensor) -> list[Tensor | None]:
        dweight = zeros(table.shape, table)
        ops.embedding_backward(dweight, dout, tokens, scale)
        return [dweight]

    return record(out, [weight], backward)
