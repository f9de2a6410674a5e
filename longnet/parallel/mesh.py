"""Ranks in two directions: those that share sequences, and those that have different ones."""

from __future__ import annotations

from longnet.arguments import integer
from longnet.communicator import Communicator
from longnet.errors import ConfigError


class Mesh:
    """All ranks of a run: `data` groups of `sequence` ranks each.

    A group shares each of its sequences, one shard of consecutive rows a rank; the groups have
    different sequences. The ranks of a group are neighbours, since they exchange the most: with 8
    GPUs a host and `sequence` 8, they are those of one host.

    Parameters
    ----------
    world : Communicator
        Of all ranks, each of which calls this. It stays the caller's to close.
    sequence : int
        Ranks that share a sequence.
    data : int
        Groups with sequences of their own.

    Attributes
    ----------
    world : Communicator
        Rank ``data_rank * sequence + sequence_rank``.
    sequence : Communicator
        Of this rank's group, in the order of the rows that they hold.
    data : Communicator
        Of the ranks that hold the same rows of different sequences.
    sequence_rank, data_rank : int
        This rank's place in them.

    Raises
    ------
    ConfigError
        The two numbers do not multiply to the ranks that there are, or are not the same on all
        ranks.
    """

    def __init__(self, world: Communicator, sequence: int, data: int) -> None:
        sequence, data = integer("sequence", sequence), integer("data", data)
        world.agree("mesh: (sequence, data)", (sequence, data))
        if sequence < 1 or data < 1 or sequence * data != world.size:
            raise ConfigError(
                f"mesh: found sequence {sequence} times data {data}, expected two numbers whose "
                f"product is {world.size}, the number of ranks"
            )
        self.world = world
        self.data_rank, self.sequence_rank = divmod(world.rank, sequence)
        self.sequence = _part(world, self.data_rank)
        self.data = _part(world, self.sequence_rank)

    def close(self) -> None:
        """Close the two communicators that were made from `world`."""
        self.sequence.close()
        self.data.close()

    def __repr__(self) -> str:
        return (
            f"<Mesh sequence rank {self.sequence_rank} of {self.sequence.size}, "
            f"data rank {self.data_rank} of {self.data.size}>"
        )


def shard(length: int, size: int, rank: int) -> tuple[int, int]:
    """Return what rank `rank` of `size` has of `length` rows: [begin, end), in order of ranks.

    The lengths differ by one at most, and the longer ones come first.
    """
    part, longer = divmod(length, size)
    begin = rank * part + min(rank, longer)
    return begin, begin + part + (rank < longer)


def _part(world: Communicator, color: int) -> Communicator:
    part = world.split(color)
    assert part is not None  # only a color of None gives none
    return part
