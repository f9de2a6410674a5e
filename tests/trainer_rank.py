"""One rank of MPI that runs `longnet` with the arguments after the first, a folder.

It notes in that folder what process it is, what it says on standard error, and its exit code.
"""

import os
import sys
from pathlib import Path

from longnet.cli import main
from longnet.communicator import environment

folder, rank = Path(sys.argv[1]), environment.read(os.environ).rank
(folder / f"{rank}.pid").write_text(str(os.getpid()))
sys.stderr = (folder / f"{rank}.err").open("w", buffering=1)
code = main(sys.argv[2:])
(folder / f"{rank}.code").write_text(str(code))
sys.exit(code)
