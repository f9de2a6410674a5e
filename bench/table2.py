"""Table 2 of LongNet's paper in small: `python bench/table2.py --help`."""

import sys

from longnet.bench.paper.table2 import main

if __name__ == "__main__":
    sys.exit(main())
