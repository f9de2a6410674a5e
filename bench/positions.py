"""Loss beyond the length of training, by positions: `python bench/positions.py --help`."""

import sys

from longnet.bench.positions import main

if __name__ == "__main__":
    sys.exit(main())
