"""The command, as `python -m stepwise.sweep` and as `stepwise-sweep`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
