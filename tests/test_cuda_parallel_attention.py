"""Attention of ranks that share one GPU: what they exchange goes through host memory."""

from dataclasses import asdict

import ml_dtypes
import numpy as np
import pytest
from attention_cases import NAMES, Case, random_case, relative_error
from parallel_cases import random_shards
from ranks import returned, run_threads
from reference.dilated_attention import Pattern
from test_parallel_attention import half_of_last_place, worst

import longnet
from longnet import Tensor
from longnet._core import ops
from longnet.bench.parallel_switch import Switch

pytestmark = pytest.mark.gpu

DEVICE = "cuda:0"
CONFIGURATIONS = 30


@pytest.fixture(params=["sm80", "sm90"], autouse=True)
def kernels(request, monkeypatch):
    monkeypatch.setenv("LONGNET_CUDA_KERNELS", request.param)


class Staged(Switch):
    """A rank of host memory whose tensors are on a GPU."""

    def __init__(self, inner):
        super().__init__(inner)
        self.device = DEVICE

    def _exchange(self, name, sends, receives, blocking):
        arrived = [(peer, Tensor.empty(x.shape, x.dtype)) for peer, x in receives]
        self._inner.exchange([(peer, x.to("cpu")) for peer, x in sends], arrived)
        for (_, x), (_, found) in zip(receives, arrived, strict=True):
            ops.cast(x, found.to(DEVICE))


def computed(case, rows, **options):
    """Out, lse, dq, dk and dv of some rows, from a GPU."""
    attention = longnet.DilatedAttention(**asdict(case.pattern))
    options |= case.options
    q, k, v, dout = (
        Tensor(np.ascontiguousarray(x[:, rows])).to(DEVICE)
        for x in (case.q, case.k, case.v, case.dout)
    )
    out, lse = attention.forward(q, k, v, **options)
    found = attention.backward(dout, q, k, v, out, lse, **options)
    return tuple(x.to("cpu").numpy() for x in (out, lse, *found))


def sharded(case, shards):
    """The same of all rows, by a rank for each shard."""
    bounds = np.cumsum([0, *shards])

    def call(comm):
        rows = slice(bounds[comm.rank], bounds[comm.rank + 1])
        return computed(case, rows, comm=Staged(comm))

    parts = zip(*returned(run_threads(len(shards), call)), strict=True)
    return tuple(np.concatenate(p, axis=2 if i == 1 else 1) for i, p in enumerate(parts))


def test_random_configurations():
    wrong = []
    for seed in range(CONFIGURATIONS):
        case = random_case(seed)
        shards = random_shards(np.random.default_rng(seed), case.q.shape[1], 3)
        errors = case.errors(sharded(case, shards), case.expected())
        if not max(errors.values()) <= 1e-5:
            wrong.append(f"{seed}: {shards} {case} {errors}")
    assert not wrong, "\n".join([f"{len(wrong)} configurations", *wrong[:10]])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gradient", ["exact", "detached"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(dtype, gradient, causal):
    """As on the CPU: at most twice the dtype's own error, which is that of one call on the GPU at
    its worst element, or half of the last place of the largest element where that is more."""
    pattern = Pattern((64, 150, 300, 600), (1, 2, 4, 6), causal, gradient=gradient)
    for seed, ranks in enumerate((2, 4)):
        rng = np.random.default_rng([seed, causal])
        shapes = [(1, 700, heads, 64) for heads in (4, 2, 2, 4)]
        case = Case(pattern, *(rng.standard_normal(x).astype(dtype) for x in shapes), {})
        exact, single = case.expected(), computed(case, slice(None))
        found = sharded(case, random_shards(rng, 700, ranks))
        for name, x, y, z in zip(NAMES, found, single, exact, strict=True):
            assert x.dtype == y.dtype, name
            if name == "lse":
                assert relative_error(x, z) < 1e-5
            else:
                own = max(worst(y, z), half_of_last_place(z, dtype))
                assert worst(x, z) <= 2 * own, (seed, name)
