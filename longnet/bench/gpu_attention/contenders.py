"""Who is measured: longnet's own tensors, and peers with autograd, on the same random data."""

from collections.abc import Callable

import torch
from torch import Tensor

import longnet
from longnet.bench.gpu_attention import peers
from longnet.bench.gpu_attention.composition import composition
from longnet.bench.gpu_attention.shapes import Shape
from longnet.bench.gpu_attention.timing import Contender, kernels

SETS = 2
LARGE = 1 << 30  # bytes of q from which on one set has to do


def random(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.bfloat16, device="cuda")


def sets(shape: Shape) -> int:
    """How many input sets; each is many times the size of a GPU's caches."""
    large = 2 * shape.batch * shape.tokens * shape.heads * shape.dim >= LARGE
    return 1 if large else SETS


class Longnet:
    """`longnet.DilatedAttention`; every call allocates its outputs, as for a user."""

    def __init__(self, shape: Shape, choice: str | None = None) -> None:
        self.shape = shape
        self.choice = choice
        self.attention = shape.attention()
        self.inputs: list[tuple[longnet.Tensor, ...]] = []  # dout, q, k, v
        self.saved: list[tuple[longnet.Tensor, ...]] = []  # out, lse

    def prepare(self, steps: tuple[str, ...]) -> int:
        size = self.shape.batch, self.shape.tokens, self.shape.heads, self.shape.dim
        for i in range(sets(self.shape)):
            self.inputs.append(tuple(longnet.Tensor(random(size)) for _ in range(4)))
            self.saved.append(self.forward(i))
        return len(self.inputs)

    def input_bytes(self, step: str) -> int:
        tensors = self.inputs[0][1:] if step == "forward" else self.inputs[0]
        saved = self.saved[0] if step == "backward" else ()
        return sum(x.nbytes for x in (*tensors, *saved))

    def forward(self, i: int) -> tuple:
        with kernels(self.choice):
            return self.attention.forward(*self.inputs[i][1:])

    def backward(self, i: int) -> tuple:
        with kernels(self.choice):
            return self.attention.backward(*self.inputs[i], *self.saved[i])

    def both(self, i: int) -> tuple:
        with kernels(self.choice):
            out, lse = self.attention.forward(*self.inputs[i][1:])
            return out, lse, *self.attention.backward(*self.inputs[i], out, lse)


class Peer:
    """A function of PyTorch and autograd."""

    def __init__(
        self, shape: Shape, make: Callable[[Shape], peers.Attend], heads_first: bool = False
    ) -> None:
        self.shape = shape
        self.make = make
        self.heads_first = heads_first
        self.inputs: list[tuple[Tensor, ...]] = []  # dout, q, k, v
        self.saved: list[Tensor] = []  # out, and its graph

    def prepare(self, steps: tuple[str, ...]) -> int:
        self.attend = self.make(self.shape)
        rows = self.shape.heads, self.shape.tokens
        rows = rows if self.heads_first else rows[::-1]
        for _ in range(sets(self.shape)):
            tensors = [random((self.shape.batch, *rows, self.shape.dim)) for _ in range(4)]
            self.inputs.append((tensors[0], *(x.requires_grad_() for x in tensors[1:])))
            if "backward" in steps:
                self.saved.append(self.attend(*tensors[1:]))
        return len(self.inputs)

    def input_bytes(self, step: str) -> int:
        tensors = self.inputs[0][1:] if step == "forward" else self.inputs[0]
        saved = self.saved[:1] if step == "backward" else []
        return sum(x.nbytes for x in (*tensors, *saved))

    def forward(self, i: int) -> tuple:
        with torch.no_grad():
            return (self.attend(*self.inputs[i][1:]),)

    def backward(self, i: int) -> tuple:
        dout, *qkv = self.inputs[i]
        return torch.autograd.grad(self.saved[i], qkv, dout, retain_graph=True)

    def both(self, i: int) -> tuple:
        dout, *qkv = self.inputs[i]
        out = self.attend(*qkv)
        return out.detach(), *torch.autograd.grad(out, qkv, dout)


# By the names of `Entry.implementation`.
IMPLEMENTATIONS: dict[str, Callable[[Shape], Contender]] = {
    "longnet": Longnet,
    "longnet sm80": lambda shape: Longnet(shape, "sm80"),
    "cudnn": lambda shape: Peer(shape, lambda s: peers.dense(s, peers.cudnn), heads_first=True),
    "flash": lambda shape: Peer(shape, lambda s: peers.dense(s, peers.flash), heads_first=True),
    "composition": lambda shape: Peer(shape, composition),
    "torchscale": lambda shape: Peer(shape, lambda s: peers.torchscale(s, peers.cudnn)),
}
