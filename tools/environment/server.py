"""A real ComfyUI server with this pack and nothing else in it. dev.py and the tests start it in the same way."""

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .folders import ROOT
from .process import Command, Failure, spawn, stop, tail

PACK = "stepwise"
# A pack that fails to import does not fail the boot: only these words in the log tell.
COMPLAINTS = re.compile(r"\(IMPORT FAILED\)|Cannot import|Error while calling comfy_entrypoint")


class Server:
    """A server on the loopback interface, for the length of a `with` block.

    Everything it reads or writes besides the ComfyUI tree lies under `base`; pictures go to `output` if that is
    given. Port 0 takes a free one. `echo` leaves the log in the terminal instead of `log_file`.
    """

    def __init__(
        self,
        comfyui: Path,
        python: Path,
        base: Path,
        *,
        output: Path | None = None,
        port: int = 0,
        cpu: bool = True,
        echo: bool = False,
        arguments: Command = (),
    ) -> None:
        self.comfyui, self.python, self.base = comfyui, python, base
        self.output = output or base / "output"
        self.port = port or free_port()
        self.cpu, self.echo, self.arguments = cpu, echo, arguments
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = base / "server.log"
        self.process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self, patience: float = 240.0) -> None:
        """Start, wait until it answers, and make sure that the pack is in it."""
        if answers(self.port):
            raise Failure(f"Port {self.port} is in use. Choose another one with --port.")
        for folder in ("custom_nodes", "input", "user"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        self.output.mkdir(parents=True, exist_ok=True)
        link(ROOT, self.base / "custom_nodes" / PACK)

        with self.log_file.open("wb") as log:
            streams = {} if self.echo else {"stdout": log, "stderr": subprocess.STDOUT}
            self.process = spawn(
                self.command(), cwd=self.comfyui, env=self.environment(), stdin=subprocess.DEVNULL, **streams
            )
        try:
            self.wait_until_ready(self.process, time.monotonic() + patience)
            if complaints := self.complaints():
                raise Failure(f"ComfyUI started, but could not import the pack:\n{complaints}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None

    def command(self) -> Command:
        # ComfyUI empties its temp folder when it starts, so each port has its own.
        folders = ["--base-directory", self.base, "--output-directory", self.output]
        folders += ["--temp-directory", self.base / "temp" / str(self.port)]
        address = ["--listen", "127.0.0.1", "--port", str(self.port)]
        quiet = ["--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes"]
        device = ["--cpu"] if self.cpu else []
        return [self.python, "main.py", *address, *folders, *quiet, *device, *self.arguments]

    def environment(self) -> dict[str, str]:
        """Outputs are validated in the order of a set, so the hash seed is fixed; no foreign path may reach imports."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
        return kept | {"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "DO_NOT_TRACK": "1"}

    def wait_until_ready(self, process: subprocess.Popen[Any], deadline: float) -> None:
        while True:
            if process.poll() is not None:
                raise Failure(f"ComfyUI ended with status {process.returncode} while starting.\n{self.log_tail()}")
            try:
                self.get("/system_stats")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise Failure(f"ComfyUI does not answer on {self.url}.\n{self.log_tail()}") from None
            time.sleep(0.1)

    def log(self) -> str:
        """The log without its colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log_file.read_text(encoding="utf-8", errors="replace"))

    def log_tail(self) -> str:
        return "" if self.echo else tail(self.log())

    def complaints(self) -> str:
        """What the log says about a pack that could not be imported, with the traceback before it; empty if none."""
        lines = self.log().splitlines()
        hits = [number for number, line in enumerate(lines) if COMPLAINTS.search(line)]
        if not hits:
            return ""
        tracebacks = [number for number in range(hits[0]) if lines[number].startswith("Traceback")]
        start = tracebacks[-1] if tracebacks else hits[0]
        return tail("\n".join(lines[start : hits[-1] + 1]), lines=60)

    def get(self, path: str, **query: str) -> Any:
        """The JSON behind a path of the server."""
        return json.loads(self.read(path, **query))

    def read(self, path: str, **query: str) -> bytes:
        address = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read()

    def post(self, path: str, content: Any) -> tuple[int, Any]:
        """Send JSON; return the status, whatever it is, and the JSON of the answer (None if empty)."""
        body = json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def link(target: Path, at: Path) -> None:
    """Let a folder appear at a second place: a symbolic link, or a junction where Windows forbids those."""
    if at.exists() and at.samefile(target):
        return
    at.unlink(missing_ok=True)
    try:
        at.symlink_to(target, target_is_directory=True)
    except OSError:
        if os.name != "nt":
            raise
        import _winapi

        _winapi.CreateJunction(str(target), str(at))
