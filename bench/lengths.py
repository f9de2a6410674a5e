"""Attention's time a token against the length: `python bench/lengths.py --help`."""

import sys

from longnet.bench.lengths import main

if __name__ == "__main__":
    sys.exit(main())
