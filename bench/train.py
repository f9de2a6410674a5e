"""Speed and memory of training steps: `python bench/train.py --help`."""

import sys

from longnet.bench.train import main

if __name__ == "__main__":
    sys.exit(main())
