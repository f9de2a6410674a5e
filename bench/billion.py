"""Attention over a billion tokens: `python bench/billion.py --help`."""

import sys

from longnet.bench.billion import main

if __name__ == "__main__":
    sys.exit(main())
