"""What is measured: sizes, who computes them, and which of them share a run."""

from dataclasses import dataclass, replace
from typing import Any

import longnet

APART = "forward", "backward"
ALL = "forward", "backward", "both"  # both: forward and then backward
WHOLE = "forward", "both"  # of those whose graph is too large to keep between the two

ROWS = 131_072  # tokens, all batch items together, that fill a GPU
LENGTH = 2048  # of the dense attention that everything is compared with
RATES = 1, 2, 4, 8, 16, 64
PAPER: dict[str, Any] = {
    "segment_lengths": (2048, 4096, 8192, 16384, 32768),
    "dilation_rates": (1, 2, 4, 6, 12),
}
POWERS: dict[str, Any] = {
    "segment_lengths": (2048, 8192, 32768, 131_072),
    "dilation_rates": (1, 4, 16, 64),
}
PATHOLOGY: dict[str, Any] = {
    "segment_lengths": (1024, 5792, 32768, 185_363, 1_048_576),
    "dilation_rates": (1, 2, 4, 8, 16),
    "causal": False,
}


@dataclass(frozen=True)
class Shape:
    """q, k and v (batch, tokens, heads, dim) and the levels."""

    batch: int
    tokens: int
    heads: int
    dim: int
    segment_lengths: tuple[int, ...]
    dilation_rates: tuple[int, ...]
    causal: bool = True

    def attention(self) -> longnet.DilatedAttention:
        return longnet.DilatedAttention(self.segment_lengths, self.dilation_rates, self.causal)

    def pairs(self) -> int:
        """(query, key) pairs that the definition needs."""
        return self.batch * self.attention().pairs(self.tokens, self.heads)

    def dense(self, length: int) -> "Shape":
        """As many rows in sequences of a length that all see each other."""
        return replace(
            self,
            batch=self.batch * self.tokens // length,
            tokens=length,
            segment_lengths=(length,),
            dilation_rates=(1,),
        )

    def shrunk(self, factor: int) -> "Shape":
        """Sequences, and segments with them, shorter by a factor."""
        return replace(
            self,
            tokens=max(1, self.tokens // factor),
            segment_lengths=tuple(
                max(w // factor, r)
                for w, r in zip(self.segment_lengths, self.dilation_rates, strict=True)
            ),
        )


@dataclass(frozen=True)
class Entry:
    """A line of the table: `implementation` names who computes it, in measure.py."""

    name: str
    implementation: str
    shape: Shape
    steps: tuple[str, ...] = APART


Run = list[Entry]  # measured in turn, so that a drift of the clocks meets all of them


def beside_peers(shape: Shape, same_length: dict[str, str]) -> list[Run]:
    """One of the three configurations; then dense attention of its length."""
    dense = shape.dense(LENGTH)
    return [
        [
            Entry("longnet", "longnet", shape, ALL),
            Entry("torchscale", "torchscale", shape, WHOLE),
            Entry("PyTorch composition", "composition", shape, ALL),
            Entry("cuDNN, L 2048", "cudnn", dense),
            Entry("FlashAttention-2, L 2048", "flash", dense),
        ],
        [
            Entry(f"{name}, same N", implementation, shape.dense(shape.tokens))
            for name, implementation in same_length.items()
        ],
    ]


def rates(dim: int) -> Run:
    """Single levels with as many rows a segment."""
    return [_level(f"D {dim}, r {r}", dim, LENGTH, r) for r in RATES]


def longer(dim: int) -> Run:
    """Single levels with four times as many rows a segment, dense and as sparse as is compared."""
    return [_level(f"D {dim}, r {r}, w/r {4 * LENGTH}", dim, 4 * LENGTH, r) for r in (1, 16)]


def _level(name: str, dim: int, rows: int, rate: int) -> Entry:
    """One level of so many rows a segment, as wide for any head dim."""
    shape = Shape(1, ROWS, 1024 // dim, dim, (rows * rate,), (rate,))
    return Entry(name, "longnet", shape)


def length(name: str, tokens: int, heads: int = 12, rows: int = ROWS) -> Entry:
    """The paper's levels; short sequences several at a time."""
    return Entry(name, "longnet", Shape(max(1, rows // tokens), tokens, heads, 64, **PAPER))


def ampere(heads: int, dim: int) -> Run:
    """The kernels of Ampere on any card, beside FlashAttention-2, which is made for Ampere too."""
    shape = Shape(ROWS // LENGTH, LENGTH, heads, dim, (LENGTH,), (1,))
    return [
        Entry(f"longnet sm80, D {dim}", "longnet sm80", shape),
        Entry(f"FlashAttention-2, D {dim}", "flash", shape),
        Entry(f"longnet, D {dim}", "longnet", shape),
    ]


CUDNN = {"cuDNN": "cudnn"}
BOTH = {**CUDNN, "FlashAttention-2": "flash"}
PAPER_SHAPE = Shape(1, ROWS, 12, 64, **PAPER)
GROUPS: dict[str, list[Run]] = {
    "paper": beside_peers(PAPER_SHAPE, BOTH),
    "powers": beside_peers(Shape(1, ROWS, 16, 128, **POWERS), BOTH),
    # seconds a call for FlashAttention-2 at that length
    "pathology": beside_peers(Shape(1, 2 * ROWS, 16, 48, **PATHOLOGY), CUDNN),
    "rates": [rates(64), rates(128), longer(64), longer(128)],
    "lengths": [
        [length(f"{n}K", n << 10) for n in (8, 16, 32, 128, 256)],
        # these two are compared: enough rows that neither how a call begins nor how it ends counts
        [length("64K", 1 << 16, rows=1 << 20), length("4M", 1 << 22)],
        [length("1M", 1 << 20)],
        [length("16M, 3 heads", 1 << 24, heads=3)],  # 12 do not fit into 80 GB
    ],
    "sm80": [
        ampere(12, 64),
        ampere(16, 128),
        [Entry("longnet sm80, paper", "longnet sm80", PAPER_SHAPE, ALL)],
    ],
}
