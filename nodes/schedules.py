"""One node per schedule of the registry, and one for ComfyUI's own by their names."""

from typing import Any

import torch
from comfy_api.latest import io

from ..samplers.registry import SCHEDULES, Schedule
from .host.latents import positions
from .host.models import sampling_of, trained_of
from .host.schedulers import NAMED_INPUTS, NAMES, named_sigmas
from .shared.inputs import schedule_widgets
from .shared.messages import named
from .shared.preview import NAMED, preview, schedule_values
from .shared.schema import description

MODEL_TOOLTIPS = {
    (): "When wired, it is checked that the schedule fits the model.",
    ("shift", "sigma_min"): "When wired, shift comes from the model, and so does its lowest level.",
    ("sigma_max",): "When wired, the schedule begins at the model's highest noise level instead of 1.",
    ("table",): "When wired, the trained noise levels come from the model, and the beta inputs are not used.",
}
RANGE_TOOLTIP = "When wired, sigma_min and sigma_max come from the model."
LATENT_TOOLTIP = "When wired, tokens is the number of its positions: frames x height x width."


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
                *([io.Latent.Input("latent", optional=True, tooltip=LATENT_TOOLTIP)] if schedule.counts else []),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The noise levels of the steps, descending.")],
            # The page learns the wired model from it: sent again when a run takes this node from the cache.
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model: Any = None, latent: Any = None, **values: Any) -> io.NodeOutput:
        with named(f"{cls.SCHEDULE.name} Schedule"):
            if latent is not None:
                values[cls.SCHEDULE.counts] = positions(latent)
            trained = None if model is None else trained_of(sampling_of(model))
            sigmas = schedule_values(cls.SCHEDULE, trained, values)
        return io.NodeOutput(torch.tensor(sigmas), ui=preview(sigmas, trained))


class StepwiseNamedSchedule(io.ComfyNode):
    """The host's own levels, where a number of steps or a picture has to be the host's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        scheduler, for_sampler = NAMED_INPUTS
        return io.Schema(
            node_id=NAMED,
            display_name="Schedule by Name",
            category="stepwise/schedules",
            description="ComfyUI's noise levels by the names that KSampler and Basic Scheduler show, to the last bit. "
            "Here the number of steps is ComfyUI's, which is not always the one asked for.",
            search_aliases=[
                *NAMES,
                *("basic scheduler", "scheduler", "ksampler scheduler", "by name", "res4lyf", "stepwise", "sigmas"),
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model of the run, which ComfyUI's schedulers make their levels of."
                ),
                scheduler,
                io.Int.Input(
                    "steps", default=20, min=1, max=10000, tooltip="Number of steps, as the scheduler counts."
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="Below 1: the last steps of a schedule of steps / denoise steps, to begin from a picture.",
                ),
                for_sampler,
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The noise levels of the steps, descending.")],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, model, scheduler, steps, denoise, for_sampler) -> io.NodeOutput:
        with named("Schedule by Name"):
            sigmas = named_sigmas(sampling_of(model), scheduler, steps, denoise, for_sampler)
        return io.NodeOutput(sigmas, ui=preview(sigmas.tolist(), None))


def schedule_nodes() -> list[type[io.ComfyNode]]:
    return [type(f"Stepwise{s.id}Schedule", (ScheduleNode,), {"SCHEDULE": s}) for s in SCHEDULES]
