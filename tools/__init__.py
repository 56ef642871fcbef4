"""What dev.py and the real-server tests are made of."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets a sentence instead of a syntax error
    sys.exit("dev.py needs Python 3.11 or newer; this is {}.{}".format(*sys.version_info[:2]))
