"""Which rows of a sequence each rank has, told once for all layers of a call."""

from __future__ import annotations

from dataclasses import dataclass

from longnet.communicator import Communicator
from longnet.errors import ConfigError, LongNetError


@dataclass(frozen=True)
class Rows:
    """Rows [start, start + count) of a sequence of `total` rows."""

    start: int
    count: int
    total: int


def agree_on_rows(
    name: str,
    comm: Communicator,
    batch: int,
    count: int,
    start: int | None,
    error: LongNetError | None = None,
) -> Rows:
    """Tell all ranks how many rows each has, and what is wrong on any of them.

    Parameters
    ----------
    name : str
        Begins messages.
    comm : Communicator
        Its ranks hold the sequence in their order.
    batch, count : int
        Sequences, the same on every rank, and this rank's rows of them, which may be 0.
    start : int, optional
        Which row of the sequence this rank's first one should be.
    error : LongNetError, optional
        What this rank has found wrong before.

    Returns
    -------
    Rows

    Raises
    ------
    LongNetError
        `error`, on this rank.
    ConfigError
        On the other ranks then; and on every rank where they differ in `batch`, a `start` is not
        the sum of the earlier ranks' rows, or there are no rows at all.
    """
    if not isinstance(comm, Communicator):
        raise TypeError(f"{name}: comm: found {comm!r}, expected a longnet.Communicator")
    ranks = comm.gather_objects((None if error is None else str(error), batch, count, start))
    if error is not None:
        raise error
    begin = 0
    for rank, (message, other, rows, found) in enumerate(ranks):
        if message is not None:
            raise ConfigError(f"{name}: rank {rank}: {message}")
        if other != ranks[0][1]:
            raise ConfigError(
                f"{name}: rank {rank}: batch of {other}, expected {ranks[0][1]} as rank 0 has"
            )
        if found not in (None, begin):
            raise ConfigError(
                f"{name}: rank {rank}: start is {found}, expected {begin}, the rows of the ranks "
                "before it"
            )
        begin += rows
    if begin == 0:
        raise ConfigError(f"{name}: 0 rows on all {comm.size} ranks, expected 1 or more")
    return Rows(sum(rows for _, _, rows, _ in ranks[: comm.rank]), count, begin)
