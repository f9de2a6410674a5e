"""One process of many: AdamW on all of them against AdamW on this one's device alone."""

import sys

from optim_cases import BUCKET_BYTES, ROUNDING, assert_equal, make, result, steps

import longnet
from longnet.optim import AdamW, buckets
from longnet.parallel import Mesh

buckets.BUCKET_BYTES = BUCKET_BYTES

with longnet.Communicator.from_environment(sys.argv[1], timeout=60) as world:
    mesh = Mesh(world, 1, world.size)
    for options in ROUNDING:
        alone = AdamW(make(device=world.device), **options)
        optimizer = AdamW(make(device=world.device), **options, comm=mesh.data)
        for begin in range(0, 4, 2):
            steps(alone, range(world.size), begin=begin, count=2)
            steps(optimizer, [world.rank], begin=begin, count=2)
            expected, found = result(alone), result(optimizer)
            assert_equal(found, expected)
            assert (found.keys() == expected.keys()) == (world.rank == 0)
        states = world.gather_objects(optimizer.state_dict())
        optimizer.load_state_dict(states[0])
        steps(alone, range(world.size), begin=4, clip=1.0)
        steps(optimizer, [world.rank], begin=4, clip=1.0)
        assert optimizer.steps == alone.steps == 7
    print(f"rank {world.rank} agrees")
    mesh.close()
