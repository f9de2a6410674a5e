"""Positions: RoPE, and xPos in a form whose magnitudes do not grow with the position."""

from longnet._core import Tensor, ops
from longnet.autograd import Variable, record
from longnet.functional.buffers import empty_like


def rotary(
    x: Variable,
    *,
    sign: int,
    base: float = 10000.0,
    scale_base: float = 0.0,
    block: int = 0,
    start: int = 0,
    cu_seqlens: Tensor | None = None,
    factor: float = 1.0,
    length: int = 0,
    slow: float = 1.0,
    fast: float = 32.0,
) -> Variable:
    r"""Rotate pair i, elements 2i and 2i + 1, by the angle :math:`p \cdot base^{-2i/D}`.

    With `scale_base` above 0 this is xPos (arXiv 2212.10554): the pair is also multiplied by
    :math:`\zeta_i^{\pm ((p \bmod block) - block / 2) / scale\_base}`,
    :math:`\zeta_i = (2i/D + 0.4) / 1.4`. Inside one block, products of queries and keys are those
    of xPos with p itself in place of p mod block.

    Parameters
    ----------
    x : Variable (B, N, H, D)
    sign : {1, -1}
        1 for queries, -1 for keys.
    base : float
        Of the wavelengths.
    scale_base : float
        Tokens over which xPos scales by :math:`\zeta_i`; 0 for RoPE.
    block : int
        Tokens after which the scale starts again: the largest segment length of the layer.
    start : int
        Row of the sequence that row 0 of `x` is, and its position p.
    cu_seqlens : Tensor (S+1,) int64, optional
        Where documents of the sequence begin; positions restart there.
    factor : float
        How many times longer contexts may be than those trained on, at least 1: frequencies are
        divided by it, all of them (position interpolation, arXiv 2306.15595) or by parts.
    length : int
        Rows of the contexts trained on, for parts (YaRN, arXiv 2309.00071, section 3.2): pairs that
        turn at most `slow` times in it are divided by `factor`, those that turn `fast` times or
        more stay, and between the two the share that stays grows with the turns. 0: all.
    slow, fast : float
        In turns.

    Returns
    -------
    Variable (B, N, H, D)
    """

    def rotate(source: Tensor, inverse: bool) -> Tensor:
        out = empty_like(source)
        ops.rotary(
            out,
            source,
            cu_seqlens=cu_seqlens,
            start=start,
            base=base,
            scale_base=scale_base,
            block=block,
            inverse=inverse,
            sign=sign,
            factor=factor,
            length=length,
            slow=slow,
            fast=fast,
        )
        return out

    return record(rotate(x.data, False), [x], lambda dy: [rotate(dy, True)])
