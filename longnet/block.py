"""One layer of the model: a token mixer and a feed-forward network on the residual stream."""

from __future__ import annotations

from functools import partial
from typing import Any

from longnet import functional as F
from longnet import mixers
from longnet.autograd import Variable
from longnet.config import Config
from longnet.nn import Dropout, Linear, Module, make_norm, residual_gains
from longnet.recompute import CHUNK_ROWS, checkpoint, in_chunks

RECOMPUTE = "none", "block", "attention-kept"


class FeedForward(Module):
    """``fc2(norm(activation(fc1(x))))``; the norm only with sub-LayerNorm.

    Attributes
    ----------
    fc1 : Linear
        E to F.
    gate : Linear or None
        E to F, with swiglu: the activation is ``silu(gate(x)) * fc1(x)``.
    norm : Module or None
        Over F.
    fc2 : Linear
        F to E.
    """

    def __init__(self, config: Config, *, device: str = "cpu") -> None:
        inner, outer = residual_gains(config)
        dim, width = config.embed_dim, config.ffn_width
        first = partial(Linear, dim, width, bias=config.bias, gain=inner, device=device)
        self.fc1 = first()
        self.gate = first() if config.activation == "swiglu" else None
        self.norm = (
            make_norm(config.norm, width, config.norm_eps, device)
            if config.norm_placement == "sub"
            else None
        )
        self.fc2 = Linear(width, dim, bias=config.bias, gain=outer, device=device)

    def forward(self, x: Variable) -> Variable:
        """Map x (..., E) to (..., E)."""
        h = self.fc1(x)
        if self.gate is not None:
            h = F.swiglu(self.gate(x), h)
        elif self.norm is None:
            h = F.gelu(h)
        if self.norm is not None:
            h = self.norm(h, gelu=self.gate is None)
        return self.fc2(h)


class Block(Module):
    """One layer: ``x += mixer(mixer_norm(x))``, then ``x += ffn(ffn_norm(x))``."""

    def __init__(self, config: Config, layer: int, *, device: str = "cpu") -> None:
        self.mixer_norm = make_norm(config.norm, config.embed_dim, config.norm_eps, device)
        self.mixer = mixers.make(config.mixer, config, layer, device=device)
        self.ffn_norm = make_norm(config.norm, config.embed_dim, config.norm_eps, device)
        self.ffn = FeedForward(config, device=device)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Variable, *, recompute: str = "none", **options: Any) -> Variable:
        """Map x (B, N, E) to (B, N, E).

        Parameters
        ----------
        x : Variable (B, N, E)
        recompute : {'none', 'block', 'attention-kept'}
            What the backward pass computes again: nothing, or everything but, in the last case, the
            mixer's attention.
        **options
            The mixer's.
        """
        mix = partial(self._mix, **options)
        if recompute != "none":
            return checkpoint(mix, x, tail=self._feed, keep=recompute == "attention-kept")
        if x.shape[0] * x.shape[1] > CHUNK_ROWS:
            return in_chunks(self._feed, mix(x))
        mixed = self.dropout(self.mixer(self.mixer_norm(x), **options))
        x, normalised = self.ffn_norm.add(x, mixed)
        return F.add(x, self.dropout(self.ffn(normalised)))

    def _mix(self, x: Variable, **options: Any) -> Variable:
        return F.add(x, self.dropout(self.mixer(self.mixer_norm(x), **options)))

    def _feed(self, x: Variable) -> Variable:
        return F.add(x, self.dropout(self.ffn(self.ffn_norm(x))))
