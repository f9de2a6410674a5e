"""Clipping of all gradients together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from longnet._core import Tensor, ops
from longnet.communicator import Communicator
from longnet.errors import ConfigError
from longnet.functional.buffers import empty
from longnet.nn import Parameter


def clip_factor(
    parameters: Iterable[Parameter], max_norm: float, divisor: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Find by what to multiply all gradients so that their norm is at most `max_norm`.

    The host does not wait for a GPU: the numbers stay there, where `AdamW.step` takes the first.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient count as 0.
    max_norm : float
        Of all gradients taken as one vector, after they are divided by `divisor`.
    divisor : float
        Such as the number of passes that the gradients are sums over.

    Returns
    -------
    factor : Tensor (1,) float32
        :math:`\min(1, \mathrm{max\_norm} / \mathrm{norm}) / \mathrm{divisor}`; NaN where the norm
        is not finite.
    norm : Tensor (1,) float32
        Of the gradients divided by `divisor`, before clipping.

    Raises
    ------
    ConfigError
        No parameter has a gradient.
    """
    return factor_of([p.grad for p in parameters if p.grad is not None], max_norm, divisor)


def factor_of(
    gradients: Sequence[Tensor],
    max_norm: float,
    divisor: float,
    comm: Communicator | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the factor and the norm of `clip_factor` from gradients, or from those of all ranks.

    Every rank gets the same bits.
    """
    if not gradients:
        raise ConfigError("clip_factor: found no gradient, expected at least one")
    squares = empty((len(gradients), 1), gradients[0], "float32")
    for i, gradient in enumerate(gradients):
        ops.sum_squares(squares[i], gradient)
    total, factor, norm = (empty((1,), squares) for _ in range(3))
    ops.sum_rows(total, squares)
    if comm is not None:
        comm.all_reduce(total)
    ops.clip(factor, norm, total, max_norm, divisor)
    return factor, norm
