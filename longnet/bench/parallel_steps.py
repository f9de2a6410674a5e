"""What ranks that share a sequence do: steps of one attention layer, and of training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from longnet import parallel
from longnet._core import Tensor, ops
from longnet.attention import DilatedAttention
from longnet.bench.growing import growing_levels
from longnet.communicator import Communicator
from longnet.config import Config
from longnet.model import LongNet
from longnet.optim import AdamW
from longnet.parallel import Pattern, bytes_received, make_plan, shard

HEADS, HEAD_DIM = 12, 64  # of the attention layer


class Step(Protocol):
    """Something that ranks do together, again and again."""

    def __call__(self) -> object: ...

    def bytes_received(self) -> float:
        """How many bytes this rank receives in a step, by the formula."""
        ...


def dtype_on(device: str) -> str:
    """What is computed in there."""
    return "float32" if device == "cpu" else "bfloat16"


class AttentionStep:
    """Forward and backward pass of one attention layer."""

    def __init__(self, comm: Communicator, tokens: int) -> None:
        self._comm = comm
        self._attention = DilatedAttention(*growing_levels(tokens))
        self._tokens = tokens
        begin, end = shard(tokens, comm.size, comm.rank)
        self._tensors = [
            Tensor.empty((1, end - begin, HEADS, HEAD_DIM), dtype_on(comm.device), comm.device)
            for _ in range(4)
        ]
        for i, x in enumerate(self._tensors):
            ops.normal(x, 0.0, 1.0, comm.rank * 4 + i)

    def __call__(self) -> object:
        """Queue one; a rank alone calls the op itself."""
        attention, (q, k, v, dout) = self._attention, self._tensors
        if self._comm.size == 1:
            return attention.backward(dout, q, k, v, *attention.forward(q, k, v))
        out, lse, *keys = parallel.forward(attention, q, k, v, comm=self._comm)
        inputs = (dout, q, k, v, out, lse)
        return parallel.backward(attention, *inputs, comm=self._comm, keys=keys)

    def bytes_received(self) -> float:
        """Keys and values once, and their gradients."""
        plan = _plan(growing_levels(self._tokens), self._comm, self._tokens, HEADS)
        itemsize = self._tensors[0].nbytes // self._tensors[0].size
        return bytes_received(plan, batch=1, head_dim=HEAD_DIM, itemsize=itemsize, gradients=True)


class TrainingStep:
    """What the trainer does for one update of a model, but for the data."""

    def __init__(self, comm: Communicator, tokens: int, preset: str, recompute: str) -> None:
        self._comm = comm
        self._tokens = tokens
        self._recompute = recompute
        lengths, rates = growing_levels(tokens)
        changes = {"segment_lengths": lengths, "dilation_rates": rates, "position": "rope"}
        self._config = Config.preset(preset, **changes)
        dtype = dtype_on(comm.device)
        self._itemsize = 4 if dtype == "float32" else 2
        self._model = LongNet(self._config, dtype=dtype, device=comm.device)
        parameters = self._model.parameters()
        self._shared = None if comm.size == 1 else comm
        self._optimizer = AdamW(parameters, dtype=dtype, comm=self._shared)
        begin, end = shard(tokens, comm.size, comm.rank)
        ids = np.random.default_rng(comm.rank).integers(
            0, self._config.vocab_size, (1, end - begin + 1), dtype=np.int32
        )
        self._batch = [np.ascontiguousarray(x) for x in (ids[:, :-1], ids[:, 1:])]

    def __call__(self) -> object:
        """Queue one."""
        optimizer = self._optimizer
        optimizer.zero_grad()
        loss = self._model.loss(
            *self._batch, recompute=self._recompute, count=self._tokens, comm=self._shared
        )
        with optimizer.gradients_final():
            loss.backward()
        factor, _ = optimizer.clip_factor(1.0)
        optimizer.step(1e-4, factor)
        return loss

    def bytes_received(self) -> float:
        """Keys and values of every layer, twice where blocks are computed again, and their
        gradients; of every parameter a part of the gradient's sum and the other ranks' weights."""
        config, size = self._config, self._comm.size
        plan = _plan(growing_levels(self._tokens), self._comm, self._tokens, config.num_heads)
        count = partial(
            bytes_received, plan, batch=1, head_dim=config.head_dim, itemsize=self._itemsize
        )
        keys, gradients = count(), count(keys=False, gradients=True)
        passes = 2 if self._recompute == "block" else 1
        parameters = sum(p.data.size for p in self._model.parameters())
        mixing = config.num_layers * (passes * keys + gradients)
        return mixing + 2 * (size - 1) / size * 4 * parameters


def _plan(
    levels: tuple[list[int], list[int]], comm: Communicator, tokens: int, heads: int
) -> parallel.Plan:
    bounds = [shard(tokens, comm.size, rank) for rank in range(comm.size)]
    pattern = Pattern(
        levels=tuple(zip(*levels, strict=True)),
        causal=True,
        zero_keys=False,
        offsets="interleaved",
        dropout=False,
        heads=heads,
        shards=tuple(end - begin for begin, end in bounds),
    )
    return make_plan(pattern, comm.rank)


Maker = Callable[[Communicator, int], Step]
