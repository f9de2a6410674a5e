"""What else computes these attentions in PyTorch, called as its users would call it.

A peer is a function of q, k and v (B, N, H, D), or (B, H, N, D) for dense attention, that gives the
output; autograd differentiates it. A kernel is dense attention of (B, H, L, D): output and LSE.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from longnet.bench.gpu_attention.shapes import Shape

Kernel = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor]]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def cudnn(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """CuDNN's kernel, whichever one PyTorch would choose."""
    attend = torch.ops.aten._scaled_dot_product_cudnn_attention
    out, lse, *_ = attend(q, k, v, None, True, 0.0, causal, False)
    return out, lse.squeeze(-1) if lse.dim() == 4 else lse


def cudnn_gradients(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, ...]:
    """Dq, dk and dv of (B, H, L, D); out and LSE (B, H, L) may be those of more keys than k's."""
    seed = torch.zeros((), dtype=torch.int64, device=q.device)  # of no dropout
    saved = out, lse[..., None].contiguous(), seed, seed, None, None, None
    backward = torch.ops.aten._scaled_dot_product_cudnn_attention_backward
    return backward(dout, q, k, v, *saved, q.shape[2], k.shape[2], 0.0, causal)


def flash(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """FlashAttention-2, PyTorch's copy of it."""
    attend = torch.ops.aten._scaled_dot_product_flash_attention
    out, lse, *_ = attend(q, k, v, 0.0, causal, False)
    return out, lse


def dense(shape: Shape, kernel: Kernel) -> Attend:
    """Every row of a sequence sees every other."""
    return lambda q, k, v: kernel(q, k, v, shape.causal)[0]


def torchscale(shape: Shape, kernel: Kernel) -> Attend:
    """Torchscale's own module over a kernel, its projections left out."""
    from torchscale.component import dilated_attention, multihead_attention

    def attend_blocks(
        q: Tensor, k: Tensor, v: Tensor, dropout: float, bias: None, scale: None, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """In place of flash-attn, which it asks for and which need not be installed."""
        out, lse = kernel(*(x.transpose(1, 2) for x in (q, k, v)), causal)
        return out.transpose(1, 2), lse

    multihead_attention.flash_attn_func = attend_blocks
    options = SimpleNamespace(
        multiway=False,
        xpos_rel_pos=False,
        flash_attention=True,
        seq_parallel=False,
        layernorm_eps=1e-5,
        segment_length=list(shape.segment_lengths),
        dilated_ratio=list(shape.dilation_rates),
    )
    width = shape.heads * shape.dim
    module = dilated_attention.DilatedAttention(options, width, shape.heads, self_attention=True)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        setattr(module, name, nn.Identity())

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, _ = module(*(x.flatten(2) for x in (q, k, v)), is_causal=shape.causal)
        return out.unflatten(2, (shape.heads, shape.dim))

    return attend
