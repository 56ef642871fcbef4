"""ComfyUI servers for the length of a run: one for each device, on the loopback interface."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .host import Host
from .values import BadSweep

PATIENCE = 300.0
CPU = "cpu"


@contextmanager
def started(devices: Sequence[str], comfyui: Path, python: str, arguments: Sequence[str]) -> Iterator[list[str]]:
    """The addresses of servers on these devices, numbers of GPUs or `cpu`, from the ComfyUI in a folder.

    Raises BadSweep where one does not start, with the end of what it said.
    """
    if not (comfyui / "main.py").is_file():
        raise BadSweep(f"--comfyui: there is no ComfyUI in {comfyui}.")
    if bad := [each for each in devices if each != CPU and not each.isdecimal()]:
        raise BadSweep(f"--start: {bad[0]!r} is no device; write numbers of GPUs, such as 0,1, or {CPU}.")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stepwise-sweep-")))
        found = []
        for place, device in enumerate(devices):
            port, log = free_port(), folder / f"{place}.log"
            # Each has a temp folder of its own: ComfyUI empties it when it starts.
            command = [python, "main.py", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"]
            command += ["--database-url", "sqlite:///:memory:", "--temp-directory", str(folder / str(place))]
            command += ["--cpu"] if device == CPU else ["--cuda-device", device]
            process = begun([*command, *arguments], comfyui, log)
            stack.callback(end, process)
            found.append((f"http://127.0.0.1:{port}", process, log))
        for url, process, log in found:
            wait(url, process, log)
        yield [url for url, _, _ in found]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def begun(command: list[str], folder: Path, log: Path) -> "subprocess.Popen[Any]":
    """In a session of its own, so that Ctrl-C reaches this process alone; on Linux it ends when this process is
    killed."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    prefix = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
    with log.open("wb") as out:
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*prefix, *command], cwd=folder, start_new_session=True, **streams)


def wait(url: str, process: "subprocess.Popen[Any]", log: Path) -> None:
    host, deadline = Host(url), time.monotonic() + PATIENCE
    while not host.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            said = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
            raise BadSweep(f"a ComfyUI did not start on {url}. It said:\n{said}")
        time.sleep(0.2)


def end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
