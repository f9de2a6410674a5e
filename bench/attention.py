"""Speed and memory of dilated attention: `python bench/attention.py --help`."""

import sys

from longnet.bench.attention import main

if __name__ == "__main__":
    sys.exit(main())
