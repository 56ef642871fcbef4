"""Answers to what the page posts: a body of at most a size, one after the other, beside the event loop."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]


async def read_body(request: web.Request, largest: int) -> bytes | None:
    """The body, or None for one that is too large, of which no more is read than shows that."""
    if (request.content_length or 0) > largest:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > largest:
            return None
    return bytes(body)


def posted(reply: Callable[[bytes], tuple[int, str]], largest: int, worker: ThreadPoolExecutor) -> Handler:
    """The handler that gives what `reply` says of a body: the status and JSON."""

    async def on_post(request: web.Request) -> web.Response:
        body = await read_body(request, largest)
        if body is None:
            status, text = 413, json.dumps({"error": f"a question has at most {largest} bytes"})
        else:
            status, text = await asyncio.get_running_loop().run_in_executor(worker, reply, body)
        return web.Response(text=text, status=status, content_type="application/json")

    return on_post
