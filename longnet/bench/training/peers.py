"""The same model in PyTorch, as its users would train it: compiled, autocast, a fused AdamW.

The same layers and sizes, with RoPE in the place of xPos.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longnet.bench.gpu_attention import peers as attention_peers
from longnet.bench.gpu_attention.shapes import Shape
from longnet.bench.training.cases import MODEL, Case
from longnet.config import Config

CHUNK = 16384  # tokens whose logits exist at one time


class Block(nn.Module):
    """x += attention, x += feed-forward, each with sub-LayerNorm, as `longnet.model.Block`."""

    def __init__(self, config: Config, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        dim, width = config.embed_dim, config.ffn_width
        self.heads, self.attend = config.num_heads, attend
        self.norms = nn.ModuleList(nn.LayerNorm(d) for d in (dim, dim, dim, width))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, width), nn.Linear(width, dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        mixed = self.attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        x = x + self.out(self.norms[1](mixed.flatten(2)))
        return x + self.fc2(self.norms[3](F.gelu(self.fc1(self.norms[2](x)))))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of x (B, N, H, D); cos and sin are (N, 1, D / 2)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return pairs.flatten(-2).to(x.dtype)


class Model(nn.Module):
    """A decoder with an output projection of its own; the loss in chunks, recomputed."""

    def __init__(self, config: Config, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        vocab, dim = config.vocab_size, config.embed_dim
        self.head_dim, self.scale = config.head_dim, sqrt(dim)
        self.embedding = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList(Block(config, attend) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, vocab, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        half = torch.arange(0, self.head_dim, 2, device=tokens.device)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        angles = positions[:, None, None] * 10000.0 ** (-half / self.head_dim)
        x = self.embedding(tokens) * self.scale
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        x, targets = self.norm(x).flatten(0, 1), targets.flatten()
        parts = zip(x.split(CHUNK), targets.split(CHUNK), strict=True)
        sums = [checkpoint(self.part, *part, use_reentrant=False) for part in parts]
        return torch.stack(sums).sum() / targets.numel()

    def part(self, x: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.output(x).float(), targets, reduction="sum")


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over the whole sequence."""
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2)


class TorchStep:
    """One update: forward and backward in bfloat16, clipping, AdamW."""

    def __init__(self, case: Case) -> None:
        config = Config.preset(MODEL)
        compiled = case.implementation == "pytorch dense"
        attend = dense
        if not compiled:
            levels = config.levels(0)
            shape = Shape(
                case.batch, case.tokens, config.num_heads, config.head_dim, *levels, causal=True
            )
            attend = attention_peers.torchscale(shape, attention_peers.cudnn)
        torch.manual_seed(0)
        model = Model(config, attend).cuda()
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        self.model = torch.compile(model) if compiled else model
        ids = torch.randint(config.vocab_size, (case.batch, case.tokens + 1), device="cuda")
        self.tokens, self.targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def __call__(self) -> Callable[[], float]:
        with torch.autocast("cuda", torch.bfloat16):
            loss = self.model(self.tokens, self.targets)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item

    def reset_peak(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated()
