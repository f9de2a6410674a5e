"""Dilated attention as one object: `DilatedAttention`, and a figure of what each query sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from longnet import _core
from longnet.arguments import integer
from longnet.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class DilatedAttention(_core.DilatedAttention):
    r"""Dilated attention (LongNet, arXiv 2307.02486, section 2.2 and equations 5-15).

    Level :math:`i` cuts the sequence into segments of :math:`w_i` rows and keeps one row in
    :math:`r_i` of them: row :math:`n` lies in segment :math:`\lfloor n / w_i \rfloor` at
    :math:`p = n \bmod w_i`, and head :math:`h` takes part there iff
    :math:`p \bmod r_i = s_i(h)`. A query that takes part sees every key of its segment that takes
    part (and is not later, when causal). The levels are mixed by their softmax denominators, which
    is one softmax over the multiset union of their keys:

    .. math::

        \mathrm{LSE}_n &= \log \sum_i \sum_{m \in i} e^{s_{nm}}, \qquad
            s_{nm} = \mathrm{scale} \cdot q_n \cdot k_m \\
        O_n &= \sum_i \sum_{m \in i} e^{s_{nm} - \mathrm{LSE}_n} v_m

    Where no level covers a row of a head, :math:`O = 0` and :math:`\mathrm{LSE} = -\infty`.

    Parameters
    ----------
    segment_lengths : sequence of int
        :math:`w` of each level, in rows. The last segment may be short.
    dilation_rates : sequence of int
        :math:`r` of each level, :math:`1 \le r \le w`.
    causal : bool
        Whether a query sees no later key.
    offsets : {'interleaved', 'grouped'}
        The rule of :math:`s(h)`: ``h % r`` as in the paper, or ``h // ceil(H / r)`` as in
        torchscale, with which published weights were trained.
    gradient : {'exact', 'detached'}
        Whether backward differentiates the whole, or holds the shares of the levels constant as
        torchscale does.
    zero_keys : bool
        Whether a bidirectional query also sees torchscale's padding, keys of zeros that add
        ``exp(0)`` to the denominator. Only for weights trained with it.
    scale : float, optional
        Factor of the scores; ``1 / sqrt(D)`` by default.
    dropout : float
        The chance, in [0, 1), that a probability is dropped; the others are divided by
        ``1 - dropout``.
    deterministic : bool
        Whether gradients have the same bits every time on a GPU, which takes longer there. They
        have on a CPU, and outputs have everywhere.

    Attributes
    ----------
    segment_lengths, dilation_rates : tuple of int
    causal, zero_keys, deterministic : bool
    offsets, gradient : str
    scale : float or None
    dropout : float

    Raises
    ------
    ConfigError
        For options outside the ranges above.

    Examples
    --------
    >>> attention = DilatedAttention([2048, 4096, 8192], [1, 2, 4])
    >>> out, lse = attention.forward(q, k, v)  # q (B, N, H, D); k and v (B, N, Hk, D)
    >>> dq, dk, dv = attention.backward(dout, q, k, v, out, lse)
    """

    def visible(self, N: int, head: int = 0, *, heads: int | None = None) -> np.ndarray:
        """On how many levels each query sees each key.

        Parameters
        ----------
        N : int
            Rows of the sequence.
        head : int
            The query head.
        heads : int, optional
            H, the number of query heads. Offsets `grouped` depend on it.

        Returns
        -------
        ndarray (N, N) of uint8
            Row n counts the levels on which query n sees key m. Keys of zeros are not among them.

        Raises
        ------
        ConfigError
            If N or head is negative, head is not below `heads`, or `heads` is needed and not given.
        """
        N, head = _at_least("N", N, 0), integer("head", head)
        heads = None if heads is None else integer("heads", heads)
        if head < 0 or (heads is not None and head >= heads):
            expected = "0 or more" if heads is None else f"0 to {heads - 1}"
            raise ConfigError(f"head: {head}, expected {expected}")
        rows = np.arange(N)
        count = np.zeros((N, N), np.uint8)
        for w, r in zip(self.segment_lengths, self.dilation_rates, strict=True):
            on = rows[rows % w % r == self._offset(head, heads, r)]
            sees = on[:, None] // w == on[None, :] // w
            if self.causal:
                sees &= on[:, None] >= on[None, :]
            count[np.ix_(on, on)] += sees
        return count

    def pairs(self, N: int, heads: int) -> int:
        """How many (query, key) pairs one batch item has, a key counting on every level.

        A pair costs 4 D floating-point operations forward and 10 D backward.

        Parameters
        ----------
        N : int
            Rows of the sequence.
        heads : int
            H, the number of query heads.

        Returns
        -------
        int
            The sum of `visible` over rows, keys and heads, without making it.

        Raises
        ------
        ConfigError
            If N is negative, or there is no head.
        """
        N, heads = _at_least("N", N, 0), _at_least("heads", heads, 1)
        total = 0
        for w, r in zip(self.segment_lengths, self.dilation_rates, strict=True):
            whole, rest = divmod(N, w)
            for head in range(heads):
                s = self._offset(head, heads, r)
                for segments, rows in ((whole, w), (1, rest)):
                    on = max(0, -(-(rows - s) // r))  # rows of the segment that take part
                    total += segments * (on * (on + 1) // 2 if self.causal else on * on)
        return total

    def _offset(self, head: int, heads: int | None, rate: int) -> int:
        """s(h) of a level."""
        if self.offsets == "interleaved":
            return head % rate
        if heads is None:
            raise ConfigError("heads: None, expected the number of heads: grouped offsets need it")
        return head // -(-heads // rate)

    def plot(
        self, N: int, head: int = 0, ax: Axes | None = None, *, heads: int | None = None
    ) -> Axes:
        """Draw which keys each query sees, coloured by how many levels see them.

        Parameters
        ----------
        N : int
            Rows of the sequence; up to about 1,000 single keys can be told apart.
        head : int
            The query head.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.
        heads : int, optional
            H, the number of query heads. Offsets `grouped` depend on it.

        Returns
        -------
        matplotlib.axes.Axes
            Queries run downwards and keys to the right. Squares are the segments of each level.

        Raises
        ------
        ConfigError
            As `visible` does, and if N is 0.
        ImportError
            If matplotlib is not installed.
        """
        count = self.visible(N, head, heads=heads)
        N = _at_least("N", N, 1)
        try:
            import matplotlib.pyplot as plt
            from matplotlib.collections import LineCollection
            from matplotlib.colors import BoundaryNorm, ListedColormap
        except ImportError as error:
            raise ImportError(
                "DilatedAttention.plot needs matplotlib: pip install matplotlib"
            ) from error

        levels = len(self.segment_lengths)
        if ax is None:
            side = min(5.0 + N / 128, 9.0)  # inches: a key is never less than a pixel up to N = 700
            ax = plt.figure(figsize=(side + 0.8, side), layout="constrained").add_subplot()
        shades = plt.get_cmap("viridis")(np.linspace(0.66, 0.0, levels))
        image = ax.imshow(
            count,
            cmap=ListedColormap([(0.965, 0.965, 0.955, 1.0), *shades]),
            norm=BoundaryNorm(np.arange(levels + 2) - 0.5, levels + 1),
            interpolation="nearest" if N <= 700 else "antialiased",
            interpolation_stage="rgba",
        )
        for w in sorted({min(w, N) for w in self.segment_lengths}):
            corners = [(a - 0.5, min(a + w, N) - 0.5) for a in range(0, N, w)]
            squares = [[(a, a), (e, a), (e, e), (a, e), (a, a)] for a, e in corners]
            ax.add_collection(LineCollection(squares, color="0.4", lw=0.7, clip_on=False))
        bar = ax.figure.colorbar(image, ax=ax, ticks=range(levels + 1), shrink=0.6, pad=0.03)
        bar.set_label("levels on which the query sees the key")
        bar.ax.tick_params(length=0)
        pairs = zip(self.segment_lengths, self.dilation_rates, strict=True)
        ax.set_title("w/r " + ", ".join(f"{w}/{r}" for w, r in pairs) + f": head {head}")
        ax.set_xlabel("key")
        ax.set_ylabel("query")
        for spine in ax.spines.values():
            spine.set_visible(False)
        return ax


def _at_least(name: str, value: object, least: int) -> int:
    found = integer(name, value)
    if found < least:
        raise ConfigError(f"{name}: {found}, expected {least} or more")
    return found
