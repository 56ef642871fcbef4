"""The page's workflow with Stepwise's nodes in it (web/convert.js): data in, data and a report out."""

import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web
from server import PromptServer

from ...convert import BadWorkflow, converted
from .posted import posted

ROUTE = "/stepwise/convert"
LARGEST_BODY = 20_000_000
WORKER = ThreadPoolExecutor(1, "stepwise-convert")
KNOWN = {"workflow", "back", "join", "only"}


def read(body: bytes) -> dict[str, Any]:
    """The question in a body. Raises BadWorkflow for what is none."""
    try:
        question = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadWorkflow(f"The body is no JSON: {error}.") from None
    if not isinstance(question, dict) or not isinstance(question.get("workflow"), dict) or set(question) - KNOWN:
        raise BadWorkflow(f"A question is an object with a workflow, and nothing but {', '.join(sorted(KNOWN))}.")
    if any(not isinstance(question.get(name, False), bool) for name in ("back", "join")):
        raise BadWorkflow("back and join are true or false.")
    only = question.get("only")
    if only is not None and not (isinstance(only, list) and all(is_place(each) for each in only)):
        raise BadWorkflow("only is a list of pairs: the graph, empty for the root, and the node.")
    return question


def is_place(each: Any) -> bool:
    return isinstance(each, list) and len(each) == 2 and all(isinstance(part, str) for part in each)


def reply(body: bytes) -> tuple[int, str]:
    """Status and text of the answer to any body."""
    try:
        question = read(body)
        only = question.get("only")
        made, report = converted(
            question["workflow"],
            back=question.get("back", False),
            join=question.get("join", False),
            only=None if only is None else {(graph, node) for graph, node in only},
        )
        return 200, json.dumps({"workflow": made, "report": report.data()}, allow_nan=False)
    except BadWorkflow as error:
        return 400, json.dumps({"error": str(error)})
    except ValueError as error:
        return 400, json.dumps({"error": f"The workflow has a value that JSON has not: {error}."})


post: Callable[[web.Request], Awaitable[web.Response]] = posted(reply, LARGEST_BODY, WORKER)


async def on_question(request: web.Request) -> web.Response:
    """JSON alone: what a form of another site can send is refused before it is read."""
    if request.content_type != "application/json":
        said = {"error": f"The body is {request.content_type}, and has to be application/json."}
        return web.Response(text=json.dumps(said), status=415, content_type="application/json")
    return await post(request)


def serve_conversion() -> None:
    """Answers the page, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(ROUTE)(on_question)
