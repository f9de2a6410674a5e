"""LongNet, a decoder language model over dilated attention or another token mixer."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from longnet import functional as F
from longnet import random
from longnet._core import Tensor
from longnet.arguments import integer
from longnet.autograd import Variable
from longnet.block import RECOMPUTE, Block
from longnet.communicator import Communicator
from longnet.config import Config
from longnet.errors import ConfigError, DTypeError, ShapeError
from longnet.functional.buffers import as_tensor
from longnet.generate import ModelCache, generate
from longnet.nn import (
    Dropout,
    Embedding,
    Module,
    Parameter,
    Positions,
    initialise,
    make_norm,
)
from longnet.parallel.rows import Rows, agree_on_rows

IGNORE_INDEX = -100  # target of a token that the loss leaves out


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
    positions : Positions
        What is added to the embedding of tokens.
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
        self.positions = Positions(config, dtype=dtype, device=device)
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
        self,
        tokens: np.ndarray | Tensor,
        *,
        comm: Communicator | None = None,
        start: int | None = None,
        cache: ModelCache | None = None,
        **options: Any,
    ) -> Variable:
        """Return what the output projection sees.

        Parameters
        ----------
        tokens : array (B, N), int32 or int64
        comm, start
            Whose rows `tokens` are, as `loss` takes them.
        cache : ModelCache, optional
            Of the tokens before these; it has seen these too then. Needs `no_grad`, and of the
            other options takes `lengths` alone: how many of the N tokens each sequence has.
        **options
            `recompute`, `lengths`, `cu_seqlens` and `deterministic`, as `loss` takes them.

        Returns
        -------
        Variable (B, N, E)
        """
        tokens = as_tensor(tokens)
        rows = _rows(comm, start, tokens)
        if cache is None:
            return self._hidden(tokens, rows, comm=comm, **options)
        if comm is not None or start is not None:
            raise ConfigError("hidden: found comm or start beside cache, expected neither")
        return self._follow(tokens, cache, **options)

    def _follow(
        self, tokens: Tensor, cache: ModelCache, lengths: Sequence[int] | None = None
    ) -> Variable:
        counts = cache.begin(tokens.shape, lengths)
        total = max(seen + count for seen, count in zip(cache.seen, counts, strict=True))
        x = self.positions(self.embedding(tokens), start=cache.seen, total=total)
        x = self.dropout(x)
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            x = block(x, cache=layer, lengths=counts)
        cache.end(counts)
        return self.norm(x)

    def _hidden(
        self, tokens: Tensor, rows: Rows, *, recompute: str = "none", **options: Any
    ) -> Variable:
        if recompute not in RECOMPUTE:
            raise ConfigError(f"recompute: found {recompute!r}, expected {', '.join(RECOMPUTE)}")
        state = random.current()
        place = {"start": rows.start, "total": rows.total}
        # One seed a pass: what it draws in chunks of rows does not move the next one's.
        with random.use(state.fork() if self.training else state):
            x = self.positions(
                self.embedding(tokens), **place, cu_seqlens=options.get("cu_seqlens")
            )
            x = self.dropout(x)
            for block in self.blocks:
                x = block(x, recompute=recompute, **place, **options)
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

    def cache(self, batch: int = 1) -> ModelCache:
        """Return an empty cache for `batch` sequences, each of a length of its own."""
        mixers = [block.mixer for block in self.blocks]
        weight = self.embedding.weight.data
        return ModelCache.of(mixers, batch, self.embedding.dtype, weight.device)

    def generate(self, prompt_tokens: ArrayLike, max_new_tokens: int, **options: Any) -> np.ndarray:
        """Continue a prompt: `longnet.generate.generate` with this model.

        Parameters
        ----------
        prompt_tokens : array_like of int, (n,)
        max_new_tokens : int
        **options
            `temperature`, `top_k`, `top_p`, `seed`, `stop_token`, `cache`, `piece`.

        Returns
        -------
        numpy.ndarray, (m,) int32
            The new tokens.
        """
        return generate(self, prompt_tokens, max_new_tokens, **options)

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
        comm: Communicator | None = None,
        start: int | None = None,
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
            By what the sum of losses is divided: the number of tokens that count, in the whole
            batch where these are a part of it. By default those here, or with `comm` those of all
            its ranks, are counted; needed where `targets` lie on a GPU.
        lengths : array (B,) int64, optional
            Rows of each sequence that exist; later ones do not count.
        cu_seqlens : array (S+1,) int64, optional
            Where each of S documents packed end to end begins, and N. Needs B = 1.
        comm : Communicator, optional
            Its ranks hold the sequences in their order, consecutive rows each, of any number and
            0 too: `tokens` and `targets` are this rank's, `lengths` and `cu_seqlens` those of the
            whole. The result is this rank's share, and so are gradients: their sums over the ranks
            are the loss and its gradient. Every rank calls, and differentiates, in the same order.
        start : int, optional
            Row of the sequences that row 0 of `tokens` is. With `comm` it need not be given, and
            is checked.

        Returns
        -------
        Variable () float32

        Raises
        ------
        ShapeError
            An array has another shape.
        DataError
            No token counts.
        ConfigError
            Ranks do not fit each other, on all of them.
        """
        tokens, targets = as_tensor(tokens), as_tensor(targets)
        rows = _rows(comm, start, tokens, targets)
        if lengths is not None:
            past = rows.start + np.arange(rows.count) >= np.asarray(lengths)[:, None]
            targets = as_tensor(np.where(past, np.int32(IGNORE_INDEX), np.asarray(targets)))
        if comm is not None and count is None:
            here = F.count_targets(targets, self.config.vocab_size, IGNORE_INDEX)
            count = sum(comm.gather_objects(here))
        x = self._hidden(
            tokens,
            rows,
            recompute=recompute,
            deterministic=deterministic,
            lengths=lengths,
            cu_seqlens=cu_seqlens,
            comm=comm,
        )
        if chunk is None:
            chunk = 1024 if x.data.device == "cpu" else 8192
        output = self.output.in_dtype(x.dtype)
        return F.linear_cross_entropy(
            x, output, None, targets, chunk=chunk, ignore_index=IGNORE_INDEX, count=count
        )


def _rows(
    comm: Communicator | None, start: int | None, tokens: Tensor, targets: Tensor | None = None
) -> Rows:
    """Which rows of their sequences `tokens` are; raises, on all ranks, for what does not fit."""
    shape = tokens.shape
    error = None
    if len(shape) != 2 or shape[0] == 0 or (shape[1] == 0 and comm is None):
        error = ShapeError(f"tokens: found shape {shape}, expected (B, N), not empty")
    elif targets is not None and targets.shape != shape:
        error = ShapeError(f"targets: found shape {targets.shape}, expected {shape}")
    if comm is not None:
        batch, count = shape if error is None else (0, 0)
        return agree_on_rows("LongNet", comm, batch, count, start, error)
    if error is not None:
        raise error
    return Rows(start or 0, shape[1], shape[1])
