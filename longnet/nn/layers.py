"""The layers that a model is put together from.

Parameters are float32. A layer computes in the dtype of its input, or in the `dtype` it is given
where the input is no float.
"""

from math import sqrt

import numpy as np

from longnet import functional as F
from longnet import random
from longnet._core import Tensor
from longnet.autograd import Variable
from longnet.errors import ConfigError
from longnet.nn.module import Module
from longnet.nn.parameter import Parameter


class Linear(Module):
    """``y = x W^T + b``, begun with Xavier's normal distribution.

    Parameters
    ----------
    in_features, out_features : int
        K and O.
    bias : bool
        Whether there is b, which begins at 0.
    gain : float
        Factor of the standard deviation ``sqrt(2 / (K + O))``.
    device : str

    Attributes
    ----------
    weight : Parameter (O, K)
    bias : Parameter (O,) or None
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        gain: float = 1.0,
        device: str = "cpu",
    ) -> None:
        std = gain * sqrt(2.0 / (in_features + out_features))
        self.weight = Parameter((out_features, in_features), std=std, device=device)
        self.bias = Parameter((out_features,), device=device) if bias else None

    def forward(self, x: Variable) -> Variable:
        """Map x (..., K) to (..., O)."""
        bias = None if self.bias is None else self.bias.in_dtype(x.dtype)
        return F.linear(x, self.weight.in_dtype(x.dtype), bias)


class Embedding(Module):
    """Rows of a table, begun with a normal distribution of standard deviation ``E ** -0.5``.

    Parameters
    ----------
    num_embeddings, dim : int
        V and E.
    scale : float
        Factor of the result.
    dtype : str
        Of the result.
    device : str

    Attributes
    ----------
    weight : Parameter (V, E)
    """

    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        scale: float = 1.0,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.scale = scale
        self.dtype = dtype
        self.weight = Parameter((num_embeddings, dim), std=dim**-0.5, device=device)

    def forward(self, tokens: np.ndarray | Tensor) -> Variable:
        """Map tokens (...) to (..., E)."""
        return F.embedding(tokens, self.weight, self.scale, self.dtype)


class LayerNorm(Module):
    """Layer norm over the last dimension.

    Parameters
    ----------
    dim : int
        D.
    eps : float
        Added to the variance.
    device : str

    Attributes
    ----------
    weight, bias : Parameter (D,)
        Begin at 1 and 0.
    """

    def __init__(self, dim: int, eps: float = 1e-5, device: str = "cpu") -> None:
        self.eps = eps
        self.weight = Parameter((dim,), mean=1.0, device=device)
        self.bias = Parameter((dim,), device=device)

    def forward(self, x: Variable, *, gelu: bool = False) -> Variable:
        """Normalise x (..., D), or gelu(x)."""
        weight, bias = self.weight.in_dtype(x.dtype), self.bias.in_dtype(x.dtype)
        return F.layer_norm(x, weight, bias, self.eps, gelu=gelu)

    def add(self, x: Variable, residual: Variable) -> tuple[Variable, Variable]:
        """Return x + residual, of shape (..., D), and that normalised."""
        weight, bias = self.weight.in_dtype(x.dtype), self.bias.in_dtype(x.dtype)
        return F.add_layer_norm(x, residual, weight, bias, self.eps)


class RMSNorm(Module):
    """RMS norm over the last dimension.

    Parameters
    ----------
    dim : int
        D.
    eps : float
        Added to the mean square.
    device : str

    Attributes
    ----------
    weight : Parameter (D,)
        Begins at 1.
    """

    def __init__(self, dim: int, eps: float = 1e-5, device: str = "cpu") -> None:
        self.eps = eps
        self.weight = Parameter((dim,), mean=1.0, device=device)

    def forward(self, x: Variable, *, gelu: bool = False) -> Variable:
        """Normalise x (..., D), or gelu(x)."""
        return F.rms_norm(x, self.weight.in_dtype(x.dtype), self.eps, gelu=gelu)

    def add(self, x: Variable, residual: Variable) -> tuple[Variable, Variable]:
        """Return x + residual, of shape (..., D), and that normalised."""
        return F.add_rms_norm(x, residual, self.weight.in_dtype(x.dtype), self.eps)


_NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"layer_norm": LayerNorm, "rms_norm": RMSNorm}


def make_norm(name: str, dim: int, eps: float, device: str = "cpu") -> LayerNorm | RMSNorm:
    """Return the norm called ``layer_norm`` or ``rms_norm``; `ConfigError` for another name."""
    if name not in _NORMS:
        raise ConfigError(f"norm: found {name!r}, expected {' or '.join(_NORMS)}")
    return _NORMS[name](dim, eps, device)


class Dropout(Module):
    """Dropout while training, with seeds of `longnet.random.current`.

    Parameters
    ----------
    p : float
        Chance that an element becomes 0, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x: Variable) -> Variable:
        """Drop elements of x (...)."""
        if not self.training or self.p == 0.0:
            return x
        return F.dropout(x, self.p, random.current().next_seed())
