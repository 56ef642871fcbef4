"""One driver for each result folder. The system takes the lock away from a process that ends, in whatever way."""

import os
from pathlib import Path


class Busy(Exception):
    """Another driver works in the folder."""


class Lock:
    def __init__(self, file: Path) -> None:
        self.handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            grip(self.handle)
        except OSError:
            os.close(self.handle)
            raise Busy(f"Another stepwise-sweep is at work in {file.parent}. Wait for its end, or stop it.") from None

    def release(self) -> None:
        os.close(self.handle)


def grip(handle: int) -> None:
    """Raises OSError where another process has it."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
