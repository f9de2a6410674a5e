"""Meshes of ranks, and who holds which rows."""

import numpy as np
import pytest
from ranks import returned, run_threads

import longnet
from longnet.parallel import Mesh, shard


@pytest.mark.parametrize(("sequence", "data"), [(1, 1), (1, 3), (3, 1), (2, 2), (3, 2)])
def test_neighbours_share_sequences(sequence, data):
    def rank(comm):
        mesh = Mesh(comm, sequence, data)
        assert mesh.world is comm
        assert comm.rank == mesh.data_rank * sequence + mesh.sequence_rank
        assert (mesh.sequence.rank, mesh.data.rank) == (mesh.sequence_rank, mesh.data_rank)
        found = mesh.sequence.gather_objects(comm.rank), mesh.data.gather_objects(comm.rank)
        mesh.close()
        comm.barrier()  # the world goes on
        return found

    for r, (group, column) in enumerate(returned(run_threads(sequence * data, rank))):
        d, s = divmod(r, sequence)
        assert group == [d * sequence + i for i in range(sequence)]
        assert column == [i * sequence + s for i in range(data)]


@pytest.mark.parametrize(("sequence", "data"), [(2, 2), (3, 2), (0, 3), (-1, -3), (1, 1)])
def test_sizes_that_do_not_multiply(sequence, data):
    message = f"mesh: found sequence {sequence} times data {data}, expected .* 3, the number"
    for outcome in run_threads(3, lambda comm: Mesh(comm, sequence, data)):
        with pytest.raises(longnet.ConfigError, match=message):
            raise outcome


def test_ranks_that_differ():
    def rank(comm):
        return Mesh(comm, *((2, 1) if comm.rank else (1, 2)))

    for outcome in run_threads(2, rank):
        with pytest.raises(longnet.ConfigError, match=r"\(sequence, data\).*\(2, 1\).*\(1, 2\)"):
            raise outcome


@pytest.mark.parametrize("length", [0, 1, 7, 12, 2**40 + 5])
@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_shards(length, size):
    shards = [shard(length, size, rank) for rank in range(size)]
    assert [begin for begin, _ in shards] == [0, *(end for _, end in shards[:-1])]
    assert shards[-1][1] == length
    lengths = np.diff(shards)[:, 0]
    assert lengths.max() - lengths.min() <= 1
    assert (np.diff(lengths) <= 0).all()
