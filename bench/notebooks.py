"""The notebooks with the settings of a device: `python bench/notebooks.py --help`."""

import sys

from longnet.bench.notebooks import main

if __name__ == "__main__":
    sys.exit(main())
