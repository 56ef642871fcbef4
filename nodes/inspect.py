"""Nodes that show what a run would do."""

from comfy_api.latest import io, ui

from ..samplers import FLOW, VE
from ..samplers.parameters import InputError
from .host.levels import read_sigmas
from .host.models import path_of, sampling_of
from .host.sampler import OWN_LIMITS, Limits, PlanSampler, make_plan
from .shared.messages import named


class StepwisePlanTable(io.ComfyNode):
    """The coefficients of every step, as text, without a model call."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwisePlanTable",
            display_name="Plan Table",
            category="stepwise/inspect",
            description="What a sampler does on a schedule: each model call, its noise level, and what is added up.",
            search_aliases=["stepwise", "steps", "model calls", "debug"],
            inputs=[
                io.Sampler.Input("sampler", tooltip="A SAMPLER of Stepwise."),
                io.Sigmas.Input("sigmas", tooltip="The schedule that the table is made for."),
                io.Combo.Input(
                    "path",
                    options=["VE", "FLOW"],
                    tooltip="VE for Stable Diffusion 1, 2 and XL; FLOW for rectified flow (SD3, Flux, Wan). "
                    "Not used when a model is wired.",
                ),
                io.Model.Input("model", optional=True, tooltip="When wired, the path comes from the model."),
            ],
            outputs=[io.String.Output("table", tooltip="One line for each model call and each sum.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, sampler, sigmas, path, model=None) -> io.NodeOutput:
        with named("Plan Table"):
            if not isinstance(sampler, PlanSampler):
                raise InputError("sampler", "is not one of Stepwise, so it has no plan", "wire a Stepwise Sampler node")
            chosen, limits = {"VE": VE, "FLOW": FLOW}[path], OWN_LIMITS
            if model is not None:
                chosen, limits = path_of(sampling_of(model)), Limits.of(sampling_of(model), sampler.params)
            plan = make_plan(sampler.solver, sampler.params, chosen, read_sigmas(sigmas), limits=limits)
            text = f"{sampler.solver.name} on {plan}"
        return io.NodeOutput(text, ui=ui.PreviewText(text))
