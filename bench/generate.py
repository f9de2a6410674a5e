"""Time of a generated token by the length before it: `python bench/generate.py --help`."""

import sys

from longnet.bench.generate import main

if __name__ == "__main__":
    sys.exit(main())
