"""What the page asks about states on disk: which there are, what one holds, and which is a node's last autosave.

The page shows it in Load State (web/load_state.js), and goes on from an autosave by it (web/go_on.js).
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ...samplers import checkpoint
from ...samplers.checkpoint import DAMAGED
from ...samplers.parameters import InputError
from ..host.seeds import components_of
from . import autosave, folders
from .face import seeds_of
from .files import KINDS
from .held import HeldRun

# One question after the other, beside the event loop: a folder may be large, and a disk slow.
WORKER = ThreadPoolExecutor(1, "stepwise-states")


def states(_: Mapping[str, str]) -> dict[str, Any]:
    return {"files": folders.listed()}


def state(asked: Mapping[str, str]) -> dict[str, Any]:
    """What a state holds, in a few lines, or what is wrong with the file."""
    try:
        return {"lines": brief(folders.found(asked.get("file", "")))}
    except InputError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"file cannot be read ({error.strerror}). Choose another one."}


def last_autosave(asked: Mapping[str, str]) -> dict[str, Any]:
    """The newest file that a node of a workflow has left, by the names that its runs send along."""
    workflow, title, node = (asked.get(name, "") for name in ("workflow", "title", "node"))
    found = autosave.autosaves(autosave.folder(), autosave.stem_of(workflow, title, node))
    return {"file": autosave.listed_name(found[0]) if found else None}


def brief(file: Path) -> list[str]:
    """What a state holds, from the header of its file."""
    held = checkpoint.outline(file, KINDS)
    try:
        return told(held, file)
    except (AttributeError, IndexError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise InputError("file", f"is inconsistent: {error}", DAMAGED) from None


def told(held: Any, file: Path) -> list[str]:
    if not isinstance(held, HeldRun):
        raise InputError("file", "was saved by the library, not by a node", "choose another one")
    shapes = ["x".join(map(str, part.shape)) for part in components_of(held.latent["samples"])]
    model = held.model
    found = file.stat()
    saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.st_mtime))
    return [
        f"{held.solver}, step {held.step} of {held.steps}",
        f"latent {' and '.join(shapes)}, {seeds_of(held.seeds or (held.seed,))}",
        f"model {model.get('model', 'not named')} ({model.get('sampling', held.path.value)})",
        f"saved {saved}, {found.st_size / 2**20:.2f} MiB",
    ]


def answering(question: Callable[[Mapping[str, str]], dict[str, Any]]) -> Callable[[web.Request], Any]:
    async def on_question(request: web.Request) -> web.Response:
        told = await asyncio.get_running_loop().run_in_executor(WORKER, question, dict(request.query))
        return web.Response(text=json.dumps(told), content_type="application/json")

    return on_question


ROUTES = {"/stepwise/states": states, "/stepwise/state": state, "/stepwise/autosave": last_autosave}


def serve_states() -> None:
    """Answers the page's questions, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        for route, question in ROUTES.items():
            server.routes.get(route)(answering(question))
