"""What is made once: checked by stamps, made again when a run was interrupted, one setup at a time."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .folders import DEV, ROOT
from .process import say

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STEPS_VERSION = 1


def ensure(name: str, result: Path, inputs: list[str], line: str, make: Callable[[], None]) -> None:
    """Run `make` for the folder .dev/<name> unless `result` is there and the stamp says it came from these inputs.

    The stamp says "unfinished" while `make` runs; a folder in that state, or one moved here from elsewhere, is thrown
    away first. A folder without any stamp is taken over as it is, for `make` to complete.
    """
    stamp = DEV / "stamps" / name
    unfinished = f"{ROOT}\nunfinished"
    finished = f"{ROOT}\n{hashlib.sha256(json.dumps([STEPS_VERSION, *inputs]).encode()).hexdigest()}"
    state = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    if state == finished and result.exists():
        return

    say(line)
    if state == unfinished or (state and not state.startswith(f"{ROOT}\n")):
        shutil.rmtree(DEV / name, ignore_errors=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(unfinished, encoding="utf-8")
    make()
    stamp.write_text(finished, encoding="utf-8")


@contextmanager
def exclusive() -> Iterator[None]:
    """One setup at a time in this folder, where the system can say so."""
    DEV.mkdir(exist_ok=True)
    with (DEV / "lock").open("w", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another dev.py is setting up .dev; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
