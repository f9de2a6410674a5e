"""Modules: parameters with names, and the layers that are made of them."""

from longnet.nn.gains import residual_gains
from longnet.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm, make_norm
from longnet.nn.module import Module
from longnet.nn.parameter import Parameter, initialise

__all__ = [
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "RMSNorm",
    "initialise",
    "make_norm",
    "residual_gains",
]
