"""``python -m longnet`` is the command ``longnet``."""

import sys

from longnet.cli import main

sys.exit(main())
