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

from ...samplers import Path
from ...samplers.parameters import InputError, checked, parameters
from ...samplers.registry import SCHEDULES, Schedule
from ...samplers.schedules import trained_sigmas
from ...samplers.schedules.tables import Trained
from .curves import curve_of

ROUTE = "/stepwise/schedule"
# A question of the page is small: a few widgets and, packed, the noise levels of a model (10000 at most so far).
LARGEST_TABLE = 100_000

OTHERS = {
    "VE": "wire Karras, Exponential or Timestep Schedule instead",
    "FLOW": "wire Flow Schedule instead",
}


def schedule_values(schedule: Schedule, trained: Trained | None, values: Mapping[str, Any]) -> tuple[float, ...]:
    """The noise levels, from the model where one is wired, else from the widgets.

    Raises InputError for values that cannot be used, and for a model that the schedule makes no sense on.
    """
    ours = {name: value for name, value in values.items() if name in parameters(schedule.function)}
    rest = {name: value for name, value in values.items() if name not in ours}
    given = {**checked(schedule.function, ours)}
    if "curve" in rest:
        given["shape"] = curve_of(rest.pop("curve"), "curve")
    from_table = "table" in schedule.takes
    betas = checked(trained_sigmas if from_table else schedule.function, rest)
    if trained is not None:
        check_path(schedule, trained)
        given |= {name: getattr(trained, name) for name in schedule.takes}
    elif from_table:
        given["table"] = trained_sigmas(**betas)
    sigmas = schedule.function(**given)
    if trained is not None and sigmas[0] > trained.sigma_max * 1.0001:
        problem = f"was trained up to noise level {trained.sigma_max:.6g}, and the schedule begins at {sigmas[0]:.6g}"
        raise InputError("model", problem, "choose settings for this model's family, or another schedule")
    return sigmas


def check_path(schedule: Schedule, trained: Trained) -> None:
    if trained.path.value not in schedule.paths:
        kind = "a flow model" if trained.path.value == "FLOW" else "no flow model"
        problem = f"is {kind}, and this schedule is made for {'others' if kind == 'a flow model' else 'those'}"
        raise InputError("model", problem, OTHERS[trained.path.value])


def preview(sigmas: Sequence[float], trained: Trained | None) -> dict[str, list[Any]]:
    """What a schedule node leaves for the page: its noise levels, and what the wired model was trained on."""
    return {"stepwise_sigmas": list(sigmas), "stepwise_trained": [] if trained is None else [as_json(trained)]}


def as_json(trained: Trained) -> dict[str, Any]:
    """For JSON: the table as base64 of little-endian float32, which it was on the model."""
    table = struct.pack(f"<{len(trained.table)}f", *trained.table)
    return {"path": trained.path.value, "shift": trained.shift, "table": base64.b64encode(table).decode()}


def trained_from(data: Mapping[str, Any]) -> Trained:
    """Raises ValueError for what `as_json` did not make."""
    table = base64.b64decode(data["table"], validate=True)
    if not 0 < len(table) <= 4 * LARGEST_TABLE or len(table) % 4:
        raise ValueError("the table of noise levels is not one")
    return Trained(Path(data["path"]), struct.unpack(f"<{len(table) // 4}f", table), float(data["shift"]))


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The noise levels of the schedule node that `question` describes, or what its error would say."""

    schedule = next(each for each in SCHEDULES if f"Stepwise{each.id}Schedule" == question["node"])
    trained = trained_from(question["trained"]) if question.get("trained") else None
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
