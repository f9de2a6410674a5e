"""Perplexity by the length of training and of prompts: `python bench/context.py --help`."""

import sys

from longnet.bench.paper.context import main

if __name__ == "__main__":
    sys.exit(main())
