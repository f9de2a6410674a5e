"""Dilated attention over sequences larger than a device's memory, or any memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from longnet import _core

if TYPE_CHECKING:
    from longnet.communicator import Communicator


class StreamedAttention(_core.DilatedAttention):
    """What `longnet.DilatedAttention` does with sequences that pass through a device in pieces."""

    def stream(
        self,
        q: Any,
        k: Any,
        v: Any,
        *,
        piece: int,
        out: Any = None,
        lse: Any = None,
        sink: Callable[[int, _core.Tensor, _core.Tensor], None] | None = None,
        device: str | None = None,
        comm: Communicator | None = None,
        lengths: Any = None,
        cu_seqlens: Any = None,
        seed: int = 0,
    ) -> tuple[Any, Any]:
        """Attention output and log-sum-exp of a sequence that need not fit the device.

        The sequence passes through the device `piece` rows at a time, and of what lies outside a
        piece only the rows of K and V that take part on the levels that cross its ends are kept
        there. The result is `forward`'s: its very bits on a CPU where no segment crosses the end
        of a piece, else within rounding, of `out` once for each such level of a row.

        Parameters
        ----------
        q : array (B, N, H, D), float32, float16 or bfloat16
            Anything with `shape`, `dtype` and ``q[:, begin:end]``: a NumPy array or memory map, a
            `longnet.Tensor`, an HDF5 data set, or `longnet.parallel.Generated`, whose rows are
            made when they are asked for.
        k, v : arrays (B, N, Hk, D)
            Likewise. Bidirectional levels that are longer than a piece, and causal ones that other
            ranks share, are read a second time, the sparse rows that they need alone where the
            array lies in host memory and B is 1.
        piece : int
            Rows that the device works on at a time. Whole segments of as many levels as possible
            are best; `stream_bytes` says what it takes.
        out : array (B, N, H, D), the dtype of q, optional
            Where the output is written: ``out[:, begin:end] = rows`` with NumPy rows.
        lse : array (B, H, N) float32, optional
            Likewise.
        sink : function, optional
            ``sink(begin, out, lse)`` is called for each piece in order, with its first row and
            tensors (B, n, H, D) and (B, H, n) on the device, which are its to keep.
        device : str
            Where attention is computed: by default the communicator's device, or 'cpu'.
        comm : Communicator, optional
            Its ranks hold the sequence in their order; q, k, v and the results are this rank's
            rows. Every rank calls, with the same options; `piece` may differ.
        lengths, cu_seqlens, seed
            Of the whole sequence, as `forward` takes them.

        Returns
        -------
        out, lse
            As given; new NumPy arrays where neither of them nor `sink` was.

        Raises
        ------
        ShapeError, DTypeError, DeviceError, ConfigError, CommunicatorError
            As `forward` does, and when an array gives other rows than its shape and dtype say.

        Examples
        --------
        >>> q, k, v = (np.load(f"{name}.npy", mmap_mode="r") for name in "qkv")
        >>> out = np.lib.format.open_memmap("out.npy", "w+", q.dtype, q.shape)
        >>> attention.stream(q, k, v, piece=2**20, out=out, device="cuda")
        """
        from longnet import parallel

        return parallel.stream(
            self,
            q,
            k,
            v,
            piece=piece,
            out=out,
            lse=lse,
            sink=sink,
            device=device,
            comm=comm,
            lengths=lengths,
            cu_seqlens=cu_seqlens,
            seed=seed,
        )

    def stream_bytes(
        self,
        N: int,
        heads: int,
        head_dim: int,
        *,
        piece: int,
        kv_heads: int | None = None,
        batch: int = 1,
        dtype: str = "bfloat16",
    ) -> int:
        r"""Bound the bytes that `stream` holds on the device.

        Two pieces of q, k and v and of the results, one at work and one on its way; the compact
        rows of K and V of the levels that cross a piece's end; and where a level that is not longer
        than a piece does not divide it, copies of the rows that it has inside. With P rows of a
        piece, H query heads, Hk key/value heads and elements of e bytes:

        .. math::

            2 B P D e\,(2 H + 2 H_k) + 8 B P H + 2 B H D e \sum_i R_i
                + 4 B H D e \max_i (P / r_i + 1) + \mathrm{copies}

        over the levels that cross, :math:`R_i` rows a head: causal, those of one segment,
        :math:`\lceil \min(w_i, N) / r_i \rceil`, or of two where the piece does not divide the
        level; bidirectional, those of the whole sequence, about :math:`N / r_i`. The copies are
        one more piece of q, k, v and two of the output.

        What `forward` itself takes on P rows as scratch comes on top, and what `sink` keeps.

        Parameters
        ----------
        N : int
            Rows of the sequence; of one rank's part where levels end inside it.
        heads, head_dim : int
            H and D.
        piece : int
            As `stream` has it.
        kv_heads : int, optional
            Hk; H by default.
        batch : int
        dtype : str

        Returns
        -------
        int
            Bytes.
        """
        from longnet import parallel

        return parallel.stream_bytes(
            self,
            N,
            heads,
            head_dim,
            piece=piece,
            kv_heads=heads if kv_heads is None else kv_heads,
            batch=batch,
            dtype=dtype,
        )
