"""Dilated attention as one object: `DilatedAttention`, and a figure of what each query sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from longnet import _core
from longnet.arguments import at_least, integer
from longnet.attention_stream import StreamedAttention
from longnet.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from longnet.communicator import Communicator


class DilatedAttention(StreamedAttention):
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
        The chance, in [0, 1), that a probability is dropped; others are divided by ``1 - dropout``.
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

    def forward(  # type: ignore[override]
        self, q: Any, k: Any, v: Any, *, comm: Communicator | None = None, **options: Any
    ) -> tuple[Any, Any]:
        """Attention output and log-sum-exp.

        Parameters
        ----------
        q : array (B, N, H, D), float32, float16 or bfloat16
        k, v : arrays (B, N, Hk, D)
            Of the dtype of q; H a multiple of Hk.
        comm : Communicator, optional
            Its ranks hold the sequence, each a shard of consecutive rows, in the order of ranks:
            q, k, v and the results are this rank's. Shards may differ in length and be empty.
            Every rank calls, with the same options.
        lengths : array (B,) int64, optional
            Rows of each batch item that exist: keys past the length do not exist, outputs past it
            are 0 and their LSE -inf. With `comm`, of the whole sequence.
        cu_seqlens : array (S+1,) int64, optional
            Where each of S documents packed end to end begins, and N; B is 1. Likewise.
        seed : int
            Of dropout; give backward the same.
        query_start, dropout_origin : int, tuple of int
            Of a part of a sequence, without `comm`: q has the rows of k and v from `query_start`
            on; dropout counts rows and levels from `dropout_origin`.

        Returns
        -------
        out : array (B, N, H, D), the dtype of q
        lse : array (B, H, N) float32
            NumPy arrays where all inputs were, else longnet.Tensor.

        Raises
        ------
        ShapeError, DTypeError, DeviceError, ConfigError
            Of arguments that do not fit. With `comm` on every rank, before anything is sent, also
            where the ranks differ in what must be the same.
        CommunicatorError
            A rank has died or did not come in time.
        """
        if comm is None:
            return super().forward(q, k, v, **options)
        _check_of_ranks(options)
        from longnet import parallel

        tensors = _tensors(q, k, v)
        return _like((q, k, v), parallel.forward(self, *tensors, comm=comm, **options)[:2])

    def backward(  # type: ignore[override]
        self,
        dout: Any,
        q: Any,
        k: Any,
        v: Any,
        out: Any,
        lse: Any,
        *,
        comm: Communicator | None = None,
        **options: Any,
    ) -> tuple[Any, Any, Any]:
        """Gradients of the inputs, from the gradient of the output.

        Parameters
        ----------
        dout : array (B, N, H, D)
        q, k, v, comm, lengths, cu_seqlens, seed, query_start, dropout_origin
            As `forward` had them.
        out, lse
            What `forward` gave.
        dtype : str, optional
            Of the gradients, without `comm`: 'float32', or that of q, which is the default.

        Returns
        -------
        dq : array (B, N, H, D)
        dk, dv : arrays (B, N, Hk, D)
            With `comm`, of this rank's rows, what other ranks' queries add included.

        Raises
        ------
        ShapeError, DTypeError, DeviceError, ConfigError, CommunicatorError
            As `forward` does.
        """
        if comm is None:
            return super().backward(dout, q, k, v, out, lse, **options)
        _check_of_ranks(options)
        from longnet import parallel

        arrays = (dout, q, k, v, out, lse)
        return _like(arrays, parallel.backward(self, *_tensors(*arrays), comm=comm, **options))

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
        N, head = at_least("N", N, 0), integer("head", head)
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
        N, heads = at_least("N", N, 0), at_least("heads", heads, 1)
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
        at_least("N", N, 1)
        from longnet.attention_plot import draw

        return draw(self, count, head, ax)


def _check_of_ranks(options: Mapping[str, Any]) -> None:
    for name in ("query_start", "dropout_origin", "dtype"):
        if name in options:
            raise ConfigError(f"{name}: found {options[name]!r} with comm, expected one of the two")


def _tensors(*arrays: Any) -> list[_core.Tensor]:
    """The arrays as contiguous tensors, over the same memory where they are already."""
    tensors = [x if isinstance(x, _core.Tensor) else _core.Tensor(x) for x in arrays]
    return [x if x.is_contiguous else x.copy() for x in tensors]


def _like(arrays: Sequence[Any], results: tuple[Any, ...]) -> tuple[Any, ...]:
    """The results as NumPy arrays where all of `arrays` are."""
    if all(isinstance(x, np.ndarray) for x in arrays):
        return tuple(x.numpy() for x in results)
    return results
