"""One rank of tests/test_parallel_processes.py: `python parallel_rank.py DEVICE DTYPE CASES`.

Computes its shards of some random cases with the other ranks, and prints how far the results are
from the reference.
"""

import json
import sys
from dataclasses import asdict, replace

import ml_dtypes
import numpy as np
from attention_cases import NAMES, random_case
from parallel_cases import random_shards

import longnet
from longnet import Tensor

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def on_shard(comm, case, rows):
    """Out, lse, dq, dk and dv of this rank's rows."""
    attention = longnet.DilatedAttention(**asdict(case.pattern))
    dout, q, k, v = (
        Tensor(np.ascontiguousarray(x[:, rows])).to(comm.device)
        for x in (case.dout, case.q, case.k, case.v)
    )
    out, lse = attention.forward(q, k, v, comm=comm, **case.options)
    found = attention.backward(dout, q, k, v, out, lse, comm=comm, **case.options)
    return [x.to("cpu").numpy() for x in (out, lse, *found)]


def main(device, dtype, cases):
    with longnet.Communicator.from_environment(device, timeout=60) as comm:
        for seed in range(int(cases)):
            case = random_case(seed)
            rounded = (x.astype(DTYPES[dtype]) for x in (case.q, case.k, case.v, case.dout))
            case = replace(case, **dict(zip(("q", "k", "v", "dout"), rounded, strict=True)))
            shards = random_shards(np.random.default_rng(seed), case.q.shape[1], comm.size)
            begin = sum(shards[: comm.rank])
            rows = slice(begin, begin + shards[comm.rank])
            expected = case.expected()
            computed = [x.astype(np.float64) for x in expected]  # of other ranks' rows
            for name, x, own in zip(NAMES, computed, on_shard(comm, case, rows), strict=True):
                (x[:, :, rows] if name == "lse" else x[:, rows])[...] = own
            errors = case.errors(tuple(computed), expected)
            print(json.dumps({"seed": seed, "shards": shards, **errors}), flush=True)
        comm.barrier()


main(*sys.argv[1:])
