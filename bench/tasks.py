"""What models learn of the tasks that make themselves: `python bench/tasks.py --help`."""

import sys

from longnet.bench.tasks.command import main

if __name__ == "__main__":
    sys.exit(main())
