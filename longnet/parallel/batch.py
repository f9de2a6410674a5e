"""Which part of a batch a rank of a mesh computes."""

from __future__ import annotations

from longnet.parallel.mesh import Mesh, shard


def part_of_batch(mesh: Mesh | None, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return what of an array (B, N) is this rank's: the index of some sequences and some rows.

    Parameters
    ----------
    mesh : Mesh or None
        None: everything.
    shape : (int, int)
        B and N. Ranks beyond B or N have nothing.
    """
    if mesh is None:
        return slice(None), slice(None)
    sequences = shard(shape[0], mesh.data.size, mesh.data_rank)
    rows = shard(shape[1], mesh.sequence.size, mesh.sequence_rank)
    return slice(*sequences), slice(*rows)
