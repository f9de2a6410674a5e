"""Dilated attention on the tape."""

from typing import Any

import numpy as np

from longnet import parallel
from longnet._core import Tensor
from longnet.attention import DilatedAttention
from longnet.autograd import Variable, record
from longnet.communicator import Communicator
from longnet.kept import keep


def dilated_attention(
    q: Variable,
    k: Variable,
    v: Variable,
    attention: DilatedAttention,
    *,
    lengths: np.ndarray | Tensor | None = None,
    cu_seqlens: np.ndarray | Tensor | None = None,
    seed: int = 0,
    comm: Communicator | None = None,
) -> Variable:
    """Apply a `DilatedAttention`.

    Parameters
    ----------
    q : Variable (B, N, H, D)
    k, v : Variable (B, N, Hk, D)
        H a multiple of Hk.
    attention : DilatedAttention
        Says which query sees which key.
    lengths : array (B,) int64, optional
        Rows that exist; outputs past them are 0.
    cu_seqlens : array (S+1,) int64, optional
        Where documents packed end to end begin, and N. Needs B = 1.
    seed : int
        Of the attention's dropout.
    comm : Communicator, optional
        Its ranks hold the sequence in their order, each N rows of it; `lengths`, `cu_seqlens` and
        `seed` are the whole sequence's. Every rank calls, and differentiates, in the same order.

    Returns
    -------
    Variable (B, N, H, D)
    """
    q_data, k_data, v_data = q.data, k.data, v.data
    options: dict[str, Any] = {"lengths": lengths, "cu_seqlens": cu_seqlens, "seed": seed}
    if comm is None:
        out, lse = keep(lambda: attention.forward(q_data, k_data, v_data, **options))

        def backward(dout: Tensor) -> tuple[Tensor, ...]:
            return attention.backward(dout, q_data, k_data, v_data, out, lse, **options)
    else:
        # Keys and values of other ranks are few rows: they are stored and do not travel again.
        out, lse, *keys = keep(
            lambda: parallel.forward(attention, q_data, k_data, v_data, comm=comm, **options)
        )

        def backward(dout: Tensor) -> tuple[Tensor, ...]:
            inputs = (dout, q_data, k_data, v_data, out, lse)
            return parallel.backward(attention, *inputs, comm=comm, keys=keys, **options)

    return record(out, [q, k, v], backward)
