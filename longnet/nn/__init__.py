"""Modules: parameters with names, and the layers that are made of them."""

from longnet.nn.gains import residual_gains
from longnet.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm, make_norm
from longnet.nn.module import Module
from longnet.nn.parameter import Parameter, initialise
from longnet.nn.positions import Positions
from longnet.nn.scaling import rotation, temperature

__all__ = [
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "Positions",
    "RMSNorm",
    "initialise",
    "make_norm",
    "residual_gains",
    "rotation",
    "temperature",
]
