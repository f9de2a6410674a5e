"""Scaling of one sequence over ranks: `python bench/parallel.py --help`."""

import sys

from longnet.bench.parallel import main

if __name__ == "__main__":
    sys.exit(main())
