"""Pages that a node wrote, opened from it: no other file is served, and a page can do nothing but show itself.

A page's Content-Security-Policy names its own script and style by their digests, and forbids everything else; with
`sandbox` it is of no origin, so that even its own script reaches nothing of ComfyUI's.
"""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web
from server import PromptServer

from ...compare import POLICY

ROUTE = "/stepwise/compare"
WORKER = ThreadPoolExecutor(1, "stepwise-pages")
# The names that the route knows, of the newest pages of this start of the server: each file, and its digest.
KNOWN: dict[str, tuple[Path, bytes]] = {}
MOST_KNOWN = 1000
UNKNOWN = "This page was not written by Compare since ComfyUI was started, or has changed since. Open the file itself."
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'; sandbox allow-scripts",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def made_known(name: str, file: Path, data: bytes) -> None:
    """Lets the page be opened by this name, as long as the file holds these bytes."""
    KNOWN.pop(name, None)
    KNOWN[name] = file, hashlib.sha256(data).digest()
    while len(KNOWN) > MOST_KNOWN:
        del KNOWN[next(iter(KNOWN))]


def content_of(name: str) -> bytes | None:
    """The page of this name, if it is there and as it was written."""
    if name not in KNOWN:
        return None
    file, digest = KNOWN[name]
    try:
        data = file.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).digest() == digest else None


async def on_question(request: web.Request) -> web.StreamResponse:
    """The page, sent from here: the host puts a policy of its own on what is returned to it unsent."""
    data = await asyncio.get_running_loop().run_in_executor(WORKER, content_of, request.query.get("file", ""))
    if data is None:
        return web.Response(text=UNKNOWN, status=404)
    response = web.StreamResponse(headers=HEADERS)
    response.content_length = len(data)
    await response.prepare(request)
    await response.write(data)
    await response.write_eof()
    return response


def serve_pages() -> None:
    """Opens the pages, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.get(ROUTE)(on_question)
