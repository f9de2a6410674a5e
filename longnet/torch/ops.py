"""The ops `longnet::dilated_attention` and `longnet::dilated_attention_backward` of PyTorch.

PyTorch allocates what they return; `longnet._core` writes it, on the CPU or on PyTorch's current
stream of the tensors' GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

import longnet
from longnet import _core

OPTIONS = (
    "int[] segment_lengths, int[] dilation_rates, bool causal, str offsets, str gradient, "
    "bool zero_keys, float? scale, float dropout, Tensor? seed, Tensor? lengths, "
    "Tensor? cu_seqlens"
)
OPTION_COUNT = 11
DEVICES = ("cpu", "cuda")
# A captured call would keep its scratch memory and its dropout: graphs are cut there.
NO_CUDA_GRAPHS: dict[str, Any] = (
    {"tags": [torch.Tag.cudagraph_unsafe]} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
)


@contextmanager
def on_current_stream(device: torch.device) -> Iterator[None]:
    """Let PyTorch's current stream of the device be longnet's in a block."""
    if device.type == "cpu":
        yield
        return
    handle = torch.cuda.current_stream(device).cuda_stream
    with torch.cuda.device(device), longnet.Stream(f"cuda:{device.index}", handle=handle):
        yield


def run(op: Any, tensors: list[Tensor], options: tuple[Any, ...]) -> None:
    """Call an op of the extension: its outputs, then its inputs, then `OPTIONS`."""
    w, r, causal, offsets, gradient, zero_keys, scale, dropout, seed, lengths, cu_seqlens = options
    longnet.DilatedAttention(  # refuses wrong words and numbers by name
        w,
        r,
        causal,
        offsets=offsets,
        gradient=gradient,
        zero_keys=zero_keys,
        scale=scale,
        dropout=dropout,
    )
    with on_current_stream(tensors[0].device):
        op(
            *(borrow(x) for x in tensors),
            segment_lengths=w,
            dilation_rates=r,
            offsets=offsets == "grouped",
            causal=causal,
            detached=gradient == "detached",
            zero_keys=zero_keys,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            scale=tensors[0].shape[-1] ** -0.5 if scale is None else scale,
            dropout=dropout,
            seed=0 if seed is None else int(seed) % 2**64,
            lengths=None if lengths is None else borrow(lengths),
            cu_seqlens=None if cu_seqlens is None else borrow(cu_seqlens),
        )


class Exported:
    """A tensor by DLPack with no stream told to wait: the op is queued on PyTorch's own."""

    def __init__(self, x: Tensor) -> None:
        self.x = x.detach()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.x.device.index) if self.x.is_cuda else (1, 0)

    def __dlpack__(self, **stream_and_version: Any) -> Any:
        return to_dlpack(self.x)


def borrow(x: Tensor) -> longnet.Tensor:
    """The tensor's memory; PyTorch gives memory back in the order of the stream."""
    return longnet.Tensor.borrow(Exported(x))


def whole(x: Tensor) -> Tensor:
    """Contiguous, and at a multiple of 16 bytes, which kernels of a GPU read at once."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()


def new_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def new_lse(q: Tensor) -> Tensor:
    B, N, H, _ = q.shape
    return q.new_empty((B, H, N), dtype=torch.float32)


@torch.library.custom_op(
    "longnet::dilated_attention",
    mutates_args=(),
    device_types=DEVICES,
    **NO_CUDA_GRAPHS,
    schema=f"(Tensor q, Tensor k, Tensor v, {OPTIONS}) -> (Tensor out, Tensor lse)",
)
def forward(q: Tensor, k: Tensor, v: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    """Out (B, N, H, D) and lse (B, H, N) float32; `longnet.DilatedAttention.forward`."""
    out, lse = new_like(q), new_lse(q)
    inputs = [whole(x) for x in (q, k, v)]
    run(_core.ops.dilated_attention, [out, lse, *inputs], options)
    return out, lse


@torch.library.custom_op(
    "longnet::dilated_attention_backward",
    mutates_args=(),
    device_types=DEVICES,
    **NO_CUDA_GRAPHS,
    schema=(
        f"(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, {OPTIONS}) "
        "-> (Tensor dq, Tensor dk, Tensor dv)"
    ),
)
def backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients dq (B, N, H, D), dk and dv (B, N, Hk, D); `longnet.DilatedAttention.backward`."""
    gradients = new_like(q), new_like(k), new_like(v)
    inputs = [whole(x) for x in (dout, q, k, v, out, lse)]
    run(_core.ops.dilated_attention_backward, [*gradients, *inputs], options)
    return gradients


@forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    return new_like(q), new_lse(q)


@backward.register_fake
def _(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return new_like(q), new_like(k), new_like(v)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, *options, seed, lengths, cu_seqlens = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(q, k, v, *output, seed, lengths, cu_seqlens)
    ctx.options = options


def differentiate(ctx: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, *rest = ctx.saved_tensors
    gradients = backward(dout, q, k, v, out, lse, *ctx.options, *rest)
    return (*gradients, *[None] * OPTION_COUNT)


def refuse(ctx: Any, *gradients: Tensor) -> None:
    raise NotImplementedError(
        "dilated_attention: a gradient of its gradient, expected one backward pass: "
        "second derivatives are not implemented"
    )


forward.register_autograd(differentiate, setup_context=save)
backward.register_autograd(refuse)
