"""The curve of a schedule in its node: the same numbers as a run would give, before anything is queued.

The page asks for them when a widget changes (web/curve.js). What a wired model was trained on is known only once its
loader has run, so a schedule node sends it along with its result, and the page gives it back with its next questions.
"""

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from server import PromptServer

from ...samplers import Path
from ...samplers.parameters import InputError, checked, parameters, quoted
from ...samplers.registry import SCHEDULES, Schedule
from ...samplers.schedules import trained_sigmas
from ...samplers.schedules.checks import INSTEAD
from ...samplers.schedules.tables import Trained
from .curves import curve_of
from .posted import posted

ROUTE = "/stepwise/schedule"
# A question of the page is small: a few widgets, the points of a curve and, packed, the noise levels of a model.
LARGEST_TABLE = 20_000
LARGEST_BODY = 1_000_000
# Levels that are computed for one answer, times the points of the curve that each is read from: about a second of work.
MOST_WORK = 100_000
# One question after the other, beside the event loop: a server that draws curves does everything else meanwhile.
WORKER = ThreadPoolExecutor(1, "stepwise-curves")

# Its levels are the host's, made of the model itself.
NAMED = "StepwiseNamedSchedule"
# Of a schedule that is bound to a list of levels.
EXACT_CURE = {
    ("FLOW",): "set it to tail, or take the schedule Flow",
    ("VE", "FLOW"): "set it to tail, or take the schedule Timestep",
}

# What a node says that no model is wired to, since it cannot be held against one.
MADE_FOR = {("FLOW",): "for flow models: SD3, Flux, Wan", ("VE",): "not for flow models"}


def schedule_values(schedule: Schedule, trained: Trained | None, values: Mapping[str, Any]) -> tuple[float, ...]:
    """The noise levels, from the model where one is wired, else from the widgets.

    Raises InputError for values that cannot be used, and for a model that the schedule makes no sense on.
    """
    known = parameters(schedule.function)
    if "denoise_mode" not in known and values.get("denoise_mode", "tail") != "tail":
        problem = f"is {quoted(values['denoise_mode'])}, and {schedule.name} has no levels between those of its list"
        raise InputError("denoise_mode", problem, EXACT_CURE[schedule.paths])
    values = {name: value for name, value in values.items() if name != "denoise_mode" or name in known}
    ours = {name: value for name, value in values.items() if name in known}
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
        raise InputError("model", problem, INSTEAD[trained.path.value])


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
    levels, shift = struct.unpack(f"<{len(table) // 4}f", table), float(data["shift"])
    if not all(map(math.isfinite, (*levels, shift))):
        raise ValueError("the noise levels and the shift must be finite")
    return Trained(Path(data["path"]), levels, shift)


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The noise levels of the schedule node that `question` describes, or what its error would say, or why it has to be
    run to be seen."""
    if question["node"] == NAMED:
        return {"note": "drawn after a run, of the model"}
    schedule = next(each for each in SCHEDULES if f"Stepwise{each.id}Schedule" == question["node"])
    trained = trained_from(question["trained"]) if question.get("trained") else None
    if work(question["values"]) > MOST_WORK:
        return {"note": "too many steps to draw before a run"}
    try:
        sigmas = schedule_values(schedule, trained, question["values"])
        return {"sigmas": sigmas, "made_for": MADE_FOR.get(schedule.paths, "")}
    except InputError as error:
        return {"error": str(error)}


def work(values: Mapping[str, Any]) -> float:
    """How many levels are computed for these widgets, times the points of their curve."""
    points = values["curve"]["points"] if "curve" in values else []
    if not isinstance(points, list):
        raise ValueError("a curve has a list of points")
    return float(values.get("steps", 1)) / max(float(values.get("denoise", 1.0)), 0.01) * max(len(points), 1)


def no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def reply(body: bytes) -> tuple[int, str]:
    """Status and text of the answer to any body."""
    try:
        question = json.loads(body, parse_constant=no_number)
        if not isinstance(question, dict) or not isinstance(question.get("values"), dict):
            raise ValueError("a question has a node and its values")
        return 200, json.dumps(answer(question), allow_nan=False)
    except (ValueError, LookupError, TypeError, StopIteration, ArithmeticError, RecursionError) as error:
        return 400, json.dumps({"error": f"not a question about a schedule: {type(error).__name__}: {error}"})


on_question = posted(reply, LARGEST_BODY, WORKER)


def serve_previews() -> None:
    """Answers the page's questions, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(ROUTE)(on_question)
