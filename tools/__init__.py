"""What the people who work on the pack run: dev.py's environment, generators, measuring instruments."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets a sentence instead of a syntax error
    sys.exit("dev.py needs Python 3.11 or newer; this is {}.{}".format(*sys.version_info[:2]))
