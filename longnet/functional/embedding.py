"""Rows of a table."""

import numpy as np

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import as_tensor, empty, zeros


def embedding(tokens: np.ndarray | Tensor, weight: Variable, scale: float = 1.0) -> Variable:
    """Look up ``scale * weight[token]`` for every token.

    Parameters
    ----------
    tokens : array or Tensor (...), int32 or int64
        Rows of `weight`, 0 to V - 1.
    weight : Variable (V, E)
    scale : float
        A factor of the result.

    Returns
    -------
    Variable (..., E)
    """
    tokens, table = as_tensor(tokens), weight.data
    out = empty((*tokens.shape, table.shape[-1]), table)
    ops.embedding(out, table, tokens, scale)

    def backward(dout: Tensor) -> list[Tensor | None]:
        dweight = zeros(table.shape, table)
        ops.embedding_backward(dweight, dout, tokens, scale)
        return [dweight]

    return record(out, [weight], backward)
