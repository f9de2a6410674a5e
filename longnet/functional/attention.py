"""Dilated attention on the tape."""

from typing import Any

from longnet._core import Tensor
from longnet.attention import DilatedAttention
from longnet.autograd import Variable, record
from longnet.kept import keep


def dilated_attention(
    q: Variable,
    k: Variable,
    v: Variable,
    attention: DilatedAttention,
    *,
    lengths: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    seed: int = 0,
) -> Variable:
    """Apply a `DilatedAttention`.

    Parameters
    ----------
    q : Variable (B, N, H, D)
    k, v : Variable (B, N, Hk, D)
        H a multiple of Hk.
    attention : DilatedAttention
        Says which query sees which key.
    lengths : Tensor (B,) int64, optional
        Rows that exist; outputs past them are 0.
    cu_seqlens : Tensor (S+1,) int64, optional
        Where documents packed end to end begin, and N. Needs B = 1.
    seed : int
        Of the attention's dropout.

    Returns
    -------
    Variable (B, N, H, D)
    """
    q_data, k_data, v_data = q.data, k.data, v.data
    options: dict[str, Any] = {"lengths": lengths, "cu_seqlens": cu_seqlens, "seed": seed}
    out, lse = keep(lambda: attention.forward(q_data, k_data, v_data, **options))

    def backward(dout: Tensor) -> tuple[Tensor, ...]:
        return attention.backward(dout, q_data, k_data, v_data, out, lse, **options)

    return record(out, [q, k, v], backward)
