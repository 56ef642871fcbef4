"""The official command-line client, pointed at a server of ours."""

import os
from pathlib import Path
from typing import Any

from .folders import DEV, program
from .server import Server


def official_client(server: Server, workflow: Path) -> dict[str, Any]:
    """The arguments that make `subprocess` run a workflow file, of either format, and wait for its end.

    The client keeps settings in the home folder, so it gets one of its own: no setting of the user acts on it, and it
    leaves none behind.
    """
    home = DEV / "client-home"
    home.mkdir(parents=True, exist_ok=True)
    address = ["--where", "local", "--host", "127.0.0.1", "--port", str(server.port)]
    command = [program("client", "comfy"), "--skip-prompt", "--no-json", "run", "--workflow", workflow, "--wait"]
    private = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    return {"args": [*map(str, command), *address], "env": os.environ | private | {"DO_NOT_TRACK": "1"}}
