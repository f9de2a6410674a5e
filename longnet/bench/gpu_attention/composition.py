"""Dilated attention as somebody who knows PyTorch would compose it, with exact gradients.

Strided views of q, k and v go into a dense kernel as they are, one call a level and offset, and
outputs are mixed by their LSEs at the rows that a call covers. Backward hands the kernel's backward
the LSE and output of all levels, so that what it gives is a level's share of the gradients.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from longnet.bench.gpu_attention import peers
from longnet.bench.gpu_attention.shapes import Shape

View = Callable[[Tensor], Tensor]
Gradients = Callable[..., tuple[Tensor, ...]]


def composition(
    shape: Shape,
    kernel: peers.Kernel = peers.cudnn,
    gradients: Gradients = peers.cudnn_gradients,
) -> peers.Attend:
    """A function of q, k and v (B, N, H, D)."""

    class Composition(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = torch.zeros_like(q)
            lse = torch.full(q.shape[:3], -torch.inf, dtype=torch.float32, device=q.device)
            for view in views(shape):
                o, l = kernel(view(q), view(k), view(v), shape.causal)  # noqa: E741
                mix(view(out), view(lse), o, l)
            ctx.save_for_backward(q, k, v, out, lse)
            return out

        @staticmethod
        def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, ...]:
            q, k, v, out, lse = ctx.saved_tensors
            totals = tuple(torch.zeros_like(x) for x in (q, k, v))
            for view in views(shape):
                found = gradients(*(view(x) for x in (dout, q, k, v, out, lse)), shape.causal)
                for total, part in zip(totals, found, strict=True):
                    view(total).add_(part)
            return totals

    return Composition.apply


def mix(out: Tensor, lse: Tensor, o: Tensor, l: Tensor) -> None:  # noqa: E741
    """Out (B, H, L, D) and LSE (B, H, L), in place, with those of more keys."""
    both = torch.logaddexp(lse, l)
    out.mul_((lse - both).exp_()[..., None].to(out.dtype))
    out.addcmul_(o, (l - both).exp_()[..., None].to(out.dtype))
    lse.copy_(both)


def views(shape: Shape) -> Iterator[View]:
    """How (B, N, H, ..) is seen as (segments, heads, rows, ..), for every level, offset and length
    of segments. Head h takes the rows of a segment that begin at h % r and lie r apart."""
    for w, r in zip(shape.segment_lengths, shape.dilation_rates, strict=True):
        whole = shape.tokens - shape.tokens % w
        for begin, end in ((0, whole), (whole, shape.tokens)):
            length = min(w, end - begin)
            for s in range(min(r, shape.heads, length)):
                yield view_of(begin, end, length, s, r)


def view_of(begin: int, end: int, length: int, s: int, r: int) -> View:
    def view(x: Tensor) -> Tensor:
        segments = x[:, begin:end].view(-1, length, *x.shape[2:])  # an error rather than a copy
        return segments[:, s::r, s::r].transpose(1, 2)

    return view
