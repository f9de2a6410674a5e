"""One rank of MPI that runs all cases: writes to the folder given what became of each."""

import json
import sys
import traceback
from pathlib import Path

from communicator_cases import CASES

import longnet
from longnet.communicator import mpi

mpi.CHUNK = 4096  # bytes: long messages go in many parts
results = {}
with longnet.Communicator.from_environment("cpu", timeout=20) as communicator:
    for name, case in CASES.items():
        try:
            case(communicator)
            results[name] = ""
        except BaseException:
            results[name] = traceback.format_exc()
        Path(sys.argv[1], f"{communicator.rank}.json").write_text(json.dumps(results))
