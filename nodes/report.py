"""The node that measures a sampler."""

import json
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..samplers import FLOW, VE
from ..samplers.exact.findings import LARGEST, SMALLEST
from ..samplers.exact.report import Report, measured
from ..samplers.parameters import InputError
from ..samplers.registry import FITTED
from .host.exact import HostSampler
from .host.sampler import PlanSampler
from .shared.drawing import Look
from .shared.error_plot import error_plot
from .shared.messages import named

FAMILIES = {"both": (VE, FLOW), "VE": (VE,), "FLOW": (FLOW,)}


class StepwiseSamplerReport(io.ComfyNode):
    """Any SAMPLER, asked what it does where the answer is known."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseSamplerReport",
            display_name="Sampler Report",
            category="stepwise/inspect",
            description="Runs any SAMPLER on data whose exact answer is known, and says how accurate it is, what it "
            "costs, and whether it does what samplers should: no model is needed.",
            search_aliases=["stepwise", "benchmark", "order", "test sampler", "convergence", "accuracy", "verify"],
            inputs=[
                io.Sampler.Input("sampler", tooltip="Any SAMPLER, of any pack."),
                io.Combo.Input(
                    "families",
                    options=list(FAMILIES),
                    tooltip="The kinds of models it is run on. VE: as Stable Diffusion 1, 2 and XL are sampled. FLOW: "
                    "as SD3, Flux and Wan.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    placeholder="its own name",
                    tooltip="What the sampler is called in report and plot; empty for what it calls itself.",
                ),
                io.Combo.Input("theme", options=["dark", "light"], advanced=True, tooltip="The ground of the plot."),
                io.Int.Input(
                    "width", default=768, min=256, max=4096, step=8, advanced=True, tooltip="Of the plot, in pixels."
                ),
                io.Int.Input(
                    "height", default=576, min=256, max=4096, step=8, advanced=True, tooltip="Of the plot, in pixels."
                ),
            ],
            outputs=[
                io.String.Output("report", tooltip="One line for each finding."),
                io.Image.Output("plot", tooltip="The error over the number of model calls, beside Euler's."),
                io.String.Output("json", tooltip="The findings with their numbers, as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, sampler, families, name, theme, width, height) -> io.NodeOutput:
        with named("Sampler Report"):
            if isinstance(sampler, PlanSampler) and sampler.solver is FITTED:
                problem = "is a fitted plan: it has noise levels of its own, and the report needs others"
                raise InputError("sampler", problem, "read the report of Fit Plan, or wire it into Compare Samplers")
        bar = comfy.utils.ProgressBar(1)
        found = measured(
            name.strip() or name_of(sampler),
            HostSampler(sampler),
            HostSampler(comfy.samplers.sampler_object("euler")),
            FAMILIES[families],
            lambda done, total: bar.update_absolute(done, total),
        )
        text = found.text()
        image = torch.from_numpy(plot_of(found, Look(theme=theme, width=width, height=height)))[None] / 255.0
        shown = {**ui.PreviewText(text).as_dict(), **ui.PreviewImage(image, cls=cls).as_dict()}
        return io.NodeOutput(text, image, json.dumps(found.data(), indent=1, allow_nan=False), ui=shown)


def name_of(sampler: Any) -> str:
    """What a SAMPLER is called: the solver of ours, or the function that the host calls."""
    if isinstance(sampler, PlanSampler):
        return sampler.solver.name
    function = getattr(sampler, "sampler_function", None)
    return getattr(function, "__name__", type(sampler).__name__).removeprefix("sample_").removesuffix("_function")


def plot_of(report: Report, look: Look) -> Any:
    def curves(points: Any, name: str) -> dict[str, list[tuple[int, float]]]:
        return {f"{name}, {path}": [(each.calls, each.error) for each in found] for path, found in points.items()}

    return error_plot(curves(report.points, report.name), curves(report.euler, "Euler"), (SMALLEST, LARGEST), look)


NODES = [StepwiseSamplerReport]
