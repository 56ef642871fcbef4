"""One node per schedule of the registry."""

from typing import Any

import torch
from comfy_api.latest import io

from ..samplers.registry import SCHEDULES, Schedule
from .host.models import sampling_of, trained_of
from .shared.inputs import schedule_widgets
from .shared.messages import named
from .shared.preview import preview, schedule_values
from .shared.schema import description

MODEL_TOOLTIPS = {
    (): "When wired, it is checked that the schedule fits the model.",
    ("shift",): "When wired, shift comes from the model.",
    ("sigma_max",): "When wired, the schedule begins at the model's highest noise level instead of 1.",
    ("table",): "When wired, the trained noise levels come from the model, and the beta inputs are not used.",
}
RANGE_TOOLTIP = "When wired, sigma_min and sigma_max come from the model."


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
            search_aliases=[
                *schedule.aliases,
                *(f"{each} scheduler" for each in (schedule.name.lower(), *schedule.aliases)),
                "stepwise",
                "scheduler",
                "sigmas",
            ],
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


def schedule_nodes() -> list[type[io.ComfyNode]]:
    return [type(f"Stepwise{s.id}Schedule", (ScheduleNode,), {"SCHEDULE": s}) for s in SCHEDULES]
