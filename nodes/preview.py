"""The curve of a schedule in its node: the same numbers as a run would give, before anything is queued.

The page asks for them when a widget changes (web/curve.js). What a wired model was trained on is known only once its
loader has run, so a schedule node sends it along with its result, and the page gives it back with its next questions.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from server import PromptServer

from ..samplers import Path
from ..samplers.parameters import InputError
from ..samplers.registry import SCHEDULES
from ..samplers.trained import Trained

ROUTE = "/stepwise/schedule"
# A question of the page is small: a few widgets and, packed, the noise levels of a model (10000 at most so far).
LARGEST_TABLE = 100_000


def preview(sigmas: Sequence[float], trained: Trained | None) -> dict[str, list[Any]]:
    """What a schedule node leaves for the page: its noise levels, and what the wired model was trained on."""
    return {"stepwise_sigmas": list(sigmas), "stepwise_trained": [] if trained is None else [packed(trained)]}


def packed(trained: Trained) -> dict[str, Any]:
    """For JSON: the table as base64 of little-endian float32, which it was on the model."""
    table = struct.pack(f"<{len(trained.table)}f", *trained.table)
    return {"path": trained.path.value, "shift": trained.shift, "table": base64.b64encode(table).decode()}


def unpacked(data: Mapping[str, Any]) -> Trained:
    """Raises ValueError for what `packed` did not make."""
    table = base64.b64decode(data["table"], validate=True)
    if not 0 < len(table) <= 4 * LARGEST_TABLE or len(table) % 4:
        raise ValueError("the table of noise levels is not one")
    return Trained(Path(data["path"]), struct.unpack(f"<{len(table) // 4}f", table), float(data["shift"]))


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The noise levels of the schedule node that `question` describes, or what its error would say."""
    from .schedules import schedule_values

    schedule = next(each for each in SCHEDULES if f"Stepwise{each.id}Schedule" == question["node"])
    trained = unpacked(question["trained"]) if question.get("trained") else None
    try:
        return {"sigmas": schedule_values(schedule, trained, question["values"])}
    except InputError as error:
        return {"error": str(error)}


async def on_question(request: web.Request) -> web.Response:
    try:
        return web.json_response(answer(await request.json()))
    except (ValueError, KeyError, TypeError, StopIteration, ArithmeticError) as error:
        return web.json_response({"error": f"not a question about a schedule: {error!r}"}, status=400)


def serve_previews() -> None:
    """Answers the page's questions, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(ROUTE)(on_question)
