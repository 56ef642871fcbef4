"""One node per schedule of the registry."""

from typing import Any

import torch
from comfy_api.latest import io

from ..samplers.parameters import checked
from ..samplers.registry import SCHEDULES, Schedule
from ..samplers.schedules import trained_sigmas
from .errors import named
from .host import sampling_of, sigma_range, sigma_table
from .schema import description, widgets


class ScheduleNode(io.ComfyNode):
    """A schedule as SIGMAS; a wired model gives its range or its table of trained noise levels."""

    SCHEDULE: Schedule

    @classmethod
    def define_schema(cls) -> io.Schema:
        schedule = cls.SCHEDULE
        model = io.Model.Input("model", optional=True, tooltip=MODEL_TOOLTIPS[schedule.needs])
        return io.Schema(
            node_id=f"Stepwise{schedule.id}Schedule",
            display_name=f"{schedule.name} Schedule",
            category="stepwise/schedules",
            description=description(schedule.summary, schedule.advice, schedule.papers),
            search_aliases=[*schedule.aliases, "stepwise", "scheduler", "sigmas"],
            inputs=[
                *widgets(schedule.function),
                *(widgets(trained_sigmas) if schedule.needs == "table" else ()),
                model,
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The noise levels of the steps, from the highest down to 0.")],
        )

    @classmethod
    def execute(cls, model: Any = None, **values: Any) -> io.NodeOutput:
        with named(f"{cls.SCHEDULE.name} Schedule"):
            return io.NodeOutput(torch.tensor(schedule_values(cls.SCHEDULE, model, values)))


MODEL_TOOLTIPS = {
    "range": "When wired, sigma_min and sigma_max come from the model.",
    "table": "When wired, the trained noise levels come from the model, and the beta inputs are not used.",
}


def schedule_values(schedule: Schedule, model: Any, values: dict[str, Any]) -> tuple[float, ...]:
    """The noise levels, from the model where one is wired, else from the widgets."""
    if schedule.needs == "range":
        if model is not None:
            low, high = sigma_range(sampling_of(model))
            values = {**values, "sigma_min": low, "sigma_max": high}
        return schedule.function(**checked(schedule.function, values))
    betas = {name: values.pop(name) for name in list(values) if name.startswith("beta") or name == "train_steps"}
    table = trained_sigmas(**checked(trained_sigmas, betas)) if model is None else sigma_table(sampling_of(model))
    return schedule.function(table, **checked(schedule.function, values))


def schedule_nodes() -> list[type[io.ComfyNode]]:
    return [type(f"Stepwise{s.id}Schedule", (ScheduleNode,), {"SCHEDULE": s}) for s in SCHEDULES]
