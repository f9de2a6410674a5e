"""LongNet, a decoder language model over dilated attention or another token mixer."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any

import numpy as np

from longnet import functional as F
from longnet import mixers
from longnet._core import Tensor
from longnet.arguments import integer
from longnet.autograd import Variable
from longnet.config import Config
from longnet.errors import ConfigError, DTypeError, ShapeError
from longnet.functional.buffers import as_tensor
from longnet.nn import (
    Dropout,
    Embedding,
    Linear,
    Module,
    Parameter,
    initialise,
    make_norm,
    residual_gains,
)
from longnet.recompute import CHUNK_ROWS, checkpoint, in_chunks

IGNORE_INDEX = -100  # target of a token that the loss leaves out
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


class LongNet(Module):
    r"""A decoder language model (LongNet, arXiv 2307.02486; MAGNETO, arXiv 2210.06423).

    Tokens are embedded (times :math:`\sqrt{E}`), pass the blocks and a last norm, and are projected
    on the vocabulary.

    Parameters
    ----------
    config : Config
    seed : int
        Of the weights, each drawn by its name. Dropout takes its seeds from
        `longnet.random.current`.
    dtype : {'float32', 'bfloat16', 'float16'}
        Of activations. Parameters and their gradients are float32.
    device : str

    Attributes
    ----------
    config : Config
    embedding : Embedding
    blocks : list of Block
    norm : Module
    output : Parameter (V, E)
        The embedding's weight where the configuration ties them.
    """

    def __init__(
        self, config: Config, seed: int = 0, *, dtype: str = "float32", device: str = "cpu"
    ) -> None:
        if not isinstance(config, Config):
            raise ConfigError(f"config: found {type(config).__name__}, expected longnet.Config")
        seed = integer("seed", seed)
        if dtype not in ("float32", "bfloat16", "float16"):
            raise DTypeError(f"dtype: found {dtype!r}, expected float32, bfloat16 or float16")
        self.config = config
        vocab, dim = config.vocab_size, config.embed_dim
        self.embedding = Embedding(vocab, dim, scale=sqrt(dim), dtype=dtype, device=device)
        self.dropout = Dropout(config.dropout)
        self.blocks = [Block(config, layer, device=device) for layer in range(config.num_layers)]
        self.norm = make_norm(config.norm, dim, config.norm_eps, device)
        self.output = (
            self.embedding.weight
            if config.tie_embeddings
            else Parameter((vocab, dim), std=dim**-0.5, device=device)
        )
        initialise(self.named_parameters(), seed)

    def hidden(
        self, tokens: np.ndarray | Tensor, *, recompute: str = "none", **options: Any
    ) -> Variable:
        """Return what the output projection sees.

        Parameters
        ----------
        tokens : array (B, N), int32 or int64
        recompute : {'none', 'block', 'attention-kept'}
            What the backward pass computes again, as `loss` takes it.
        **options
            `lengths`, `cu_seqlens` and `deterministic`, as `loss` takes them.

        Returns
        -------
        Variable (B, N, E)
        """
        if recompute not in RECOMPUTE:
            raise ConfigError(f"recompute: found {recompute!r}, expected {', '.join(RECOMPUTE)}")
        tokens = as_tensor(tokens)
        if len(tokens.shape) != 2 or 0 in tokens.shape:
            raise ShapeError(f"tokens: found shape {tokens.shape}, expected (B, N), not empty")
        x = self.dropout(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, recompute=recompute, **options)
        return self.norm(x)

    def logits(self, tokens: np.ndarray | Tensor, **options: Any) -> Variable:
        """Return the logits of the token after each position.

        Parameters
        ----------
        tokens : array (B, N), int32 or int64
        **options
            As `hidden` takes them.

        Returns
        -------
        Variable (B, N, V)
        """
        x = self.hidden(tokens, **options)
        return F.linear(x, self.output.in_dtype(x.dtype))

    def loss(
        self,
        tokens: np.ndarray | Tensor,
        targets: np.ndarray | Tensor,
        *,
        chunk: int | None = None,
        recompute: str = "none",
        deterministic: bool = False,
        count: int | None = None,
        lengths: np.ndarray | None = None,
        cu_seqlens: np.ndarray | Tensor | None = None,
    ) -> Variable:
        """Return the mean loss of the tokens that count, in nats.

        Parameters
        ----------
        tokens : array (B, N), int32 or int64
            0 to V - 1.
        targets : array (B, N), int32 or int64
            The token after each; `IGNORE_INDEX` where it does not count.
        chunk : int, optional
            Tokens of which logits exist at one time; None: 1024 on the CPU, 8192 on a GPU.
        recompute : {'none', 'block', 'attention-kept'}
            What the backward pass computes again in place of storing it: nothing; each block, of
            which only the input stays; or each block but its attention, whose output stays too.
        deterministic : bool
            Gradients of the same bits every time on a GPU as well, at some cost.
        count : int, optional
            How many tokens count; needed where `targets` lie on a GPU, else they are counted.
        lengths : array (B,) int64, optional
            Rows of each sequence that exist; later ones do not count.
        cu_seqlens : array (S+1,) int64, optional
            Where each of S documents packed end to end begins, and N. Needs B = 1.

        Returns
        -------
        Variable () float32

        Raises
        ------
        ShapeError
            An array has another shape.
        DataError
            No token counts.
        """
        tokens, targets = as_tensor(tokens), as_tensor(targets)
        if targets.shape != tokens.shape:
            raise ShapeError(f"targets: found shape {targets.shape}, expected {tokens.shape}")
        if lengths is not None:
            past = np.arange(tokens.shape[1]) >= np.asarray(lengths)[:, None]
            targets = np.where(past, np.int32(IGNORE_INDEX), np.asarray(targets))
        x = self.hidden(
            tokens,
            recompute=recompute,
            deterministic=deterministic,
            lengths=lengths,
            cu_seqlens=cu_seqlens,
        )
        if chunk is None:
            chunk = 1024 if x.data.device == "cpu" else 8192
        output = self.output.in_dtype(x.dtype)
        return F.linear_cross_entropy(
            x, output, None, targets, chunk=chunk, ignore_index=IGNORE_INDEX, count=count
        )
