"""Child processes that never outlive the process which started them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Command = Sequence[str | Path]


class Failure(Exception):
    """An expected failure: its text is all that the reader needs."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived; `status` is the exit status that a shell would give."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def say(text: str) -> None:
    print(text, flush=True)


def raise_on_signals() -> None:
    """Turn the first ending signal into `Interrupted`, so that every `finally` runs; ignore the ones after it."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def interrupt(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    for each in numbers:
        signal.signal(each, interrupt)


def spawn(command: Command, **options: Any) -> subprocess.Popen[Any]:
    """Start a command in a session of its own.

    A Ctrl-C in the terminal then reaches the parent only, which passes it on once (`stop`). On Linux the kernel
    ends the child even when the parent is killed without a chance to clean up.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    prefix = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
    return subprocess.Popen([*prefix, *map(str, command)], start_new_session=True, **options)


def stop(process: subprocess.Popen[Any], patience: float = 15.0) -> None:
    """End a process started by `spawn` and all of its group: ask with SIGINT, then SIGTERM, then SIGKILL."""
    if os.name == "nt":
        process.terminate()
        process.wait()
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        signal_group(process, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    signal_group(process, signal.SIGKILL)


def signal_group(process: subprocess.Popen[Any], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@contextmanager
def running(command: Command, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child process for the length of a `with` block."""
    process = spawn(command, **options)
    try:
        yield process
    finally:
        stop(process)


def call(args: Command, **options: Any) -> int:
    """Run a command to its end and return its exit status."""
    with running(args, **options) as process:
        return process.wait()


def output(command: Command, **options: Any) -> str | None:
    """What a short command prints, or None when it fails."""
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **options) as process:
        text, _ = process.communicate()
        return text.strip() if process.returncode == 0 else None


def quiet(command: Command, failure: str, **options: Any) -> None:
    """Run a command whose output matters only when it fails."""
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options) as process:
        text, _ = process.communicate()
        if process.returncode != 0:
            raise Failure(f"{failure}\n{tail(text)}")


def tail(text: str, lines: int = 25) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])
