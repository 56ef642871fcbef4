"""One node per schedule of the registry."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from comfy_api.input import CurveInput
from comfy_api.latest import io

from ..samplers.parameters import InputError, checked, parameters
from ..samplers.registry import SCHEDULES, Schedule
from ..samplers.schedules import trained_sigmas
from ..samplers.trained import Trained
from .errors import named
from .host import sampling_of, trained_of
from .preview import preview
from .schema import description, later_last, widgets

MODEL_TOOLTIPS = {
    (): "When wired, it is checked that the schedule fits the model.",
    ("shift",): "When wired, shift comes from the model.",
    ("sigma_max",): "When wired, the schedule begins at the model's highest noise level instead of 1.",
    ("table",): "When wired, the trained noise levels come from the model, and the beta inputs are not used.",
}
RANGE_TOOLTIP = "When wired, sigma_min and sigma_max come from the model."
OTHERS = {
    "VE": "wire Karras, Exponential or Timestep Schedule instead",
    "FLOW": "wire Flow Schedule instead",
}


class ScheduleNode(io.ComfyNode):
    """A schedule as SIGMAS; a wired model gives its range or its table of trained noise levels."""

    SCHEDULE: Schedule

    @classmethod
    def define_schema(cls) -> io.Schema:
        schedule = cls.SCHEDULE
        return io.Schema(
            node_id=f"Stepwise{schedule.id}Schedule",
            display_name=f"{schedule.name} Schedule",
            category="stepwise/schedules",
            description=description(schedule.summary, schedule.advice, schedule.papers),
            search_aliases=[*schedule.aliases, "stepwise", "scheduler", "sigmas"],
            inputs=[
                *schedule_widgets(schedule),
                io.Model.Input("model", optional=True, tooltip=MODEL_TOOLTIPS.get(schedule.takes, RANGE_TOOLTIP)),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The noise levels of the steps, descending.")],
            # The page learns the wired model from it: sent again when a run takes this node from the cache.
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model: Any = None, **values: Any) -> io.NodeOutput:
        with named(f"{cls.SCHEDULE.name} Schedule"):
            trained = None if model is None else trained_of(sampling_of(model))
            sigmas = schedule_values(cls.SCHEDULE, trained, values)
        return io.NodeOutput(torch.tensor(sigmas), ui=preview(sigmas, trained))


def schedule_widgets(schedule: Schedule) -> list[io.Input]:
    """The widgets of the schedule, of the trained betas where it takes a table, and of the curve where it is drawn."""
    made = widgets(schedule.function)
    if "shape" in signature(schedule.function).parameters:
        tooltip = "Log sigma over the step: 1 is sigma_max, 0 is sigma_min. It has to fall everywhere."
        made.insert(1, io.Curve.Input("curve", default=[(0.0, 1.0), (1.0, 0.0)], tooltip=tooltip))
    if "table" in schedule.takes:
        made += widgets(trained_sigmas)
    return later_last(made)


def schedule_values(schedule: Schedule, trained: Trained | None, values: Mapping[str, Any]) -> tuple[float, ...]:
    """The noise levels, from the model where one is wired, else from the widgets.

    Raises InputError for values that cannot be used, and for a model that the schedule makes no sense on.
    """
    ours = {name: value for name, value in values.items() if name in parameters(schedule.function)}
    rest = {name: value for name, value in values.items() if name not in ours}
    given = {**checked(schedule.function, ours)}
    if "curve" in rest:
        given["shape"] = CurveInput.from_raw(rest.pop("curve")).interp
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


def schedule_nodes() -> list[type[io.ComfyNode]]:
    return [type(f"Stepwise{s.id}Schedule", (ScheduleNode,), {"SCHEDULE": s}) for s in SCHEDULES]
