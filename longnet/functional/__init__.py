"""Ops on the tape: each computes a Variable and knows its own gradient.

Inputs and results are `longnet.autograd.Variable`; the arithmetic is that of the extension's ops
and of `longnet.matmul`.
"""

from longnet.functional.activation import gelu, swiglu
from longnet.functional.attention import dilated_attention
from longnet.functional.cast import cast
from longnet.functional.dropout import dropout
from longnet.functional.embedding import embedding
from longnet.functional.linear import linear
from longnet.functional.loss import linear_cross_entropy
from longnet.functional.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from longnet.functional.residual import add
from longnet.functional.rotary import rotary
from longnet.functional.shape import reshape

__all__ = [
    "add",
    "add_layer_norm",
    "add_rms_norm",
    "cast",
    "dilated_attention",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "reshape",
    "rms_norm",
    "rotary",
    "swiglu",
]
