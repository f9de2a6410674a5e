"""Ops on the tape: each computes a Variable and knows its own gradient.

Inputs and results are `longnet.autograd.Variable`; the arithmetic is that of the extension's ops
and of `longnet.matmul`.
"""

from longnet.functional.activation import gelu, swiglu
from longnet.functional.alibi import ALIBI_EXTRA, alibi, alibi_slopes, without_alibi
from longnet.functional.attention import dilated_attention
from longnet.functional.cast import cast
from longnet.functional.dropout import dropout
from longnet.functional.embedding import embedding
from longnet.functional.fixed import fixed_attention
from longnet.functional.linear import linear
from longnet.functional.loss import count_targets, linear_cross_entropy
from longnet.functional.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from longnet.functional.residual import add
from longnet.functional.rotary import rotary
from longnet.functional.shape import reshape
from longnet.functional.sinusoidal import add_sinusoids
from longnet.functional.sliding import sliding_attention

__all__ = [
    "ALIBI_EXTRA",
    "add",
    "add_layer_norm",
    "add_rms_norm",
    "add_sinusoids",
    "alibi",
    "alibi_slopes",
    "cast",
    "count_targets",
    "dilated_attention",
    "dropout",
    "embedding",
    "fixed_attention",
    "gelu",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "reshape",
    "rms_norm",
    "rotary",
    "sliding_attention",
    "swiglu",
    "without_alibi",
]
