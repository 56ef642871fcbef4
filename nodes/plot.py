"""A node that draws schedules."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..samplers import FLOW, VE
from ..samplers.parameters import InputError
from ..samplers.schedules.tables import Trained
from .host.levels import read_sigmas
from .host.models import path_of, sampling_of, trained_of
from .shared.drawing import LINEAR, LOG, LOG_SNR, Look, draw
from .shared.inputs import growing
from .shared.messages import named

MOST = 20


class StepwisePlotSigmas(io.ComfyNode):
    """Schedules as curves in one picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schedule = io.Sigmas.Input("sigmas", tooltip="A schedule to draw.")
        return io.Schema(
            node_id="StepwisePlotSigmas",
            display_name="Plot Sigmas",
            category="stepwise/inspect",
            description="Draws schedules as curves: the noise level over the steps, and below it how large each step "
            "is.",
            search_aliases=["stepwise", "graph", "curve", "schedule", "compare schedules", "preview sigmas", "log-snr"],
            inputs=[
                growing("sigmas", schedule, MOST, "The schedules, from any node."),
                io.String.Input(
                    "names",
                    multiline=True,
                    default="",
                    placeholder="names of the curves, one per line",
                    tooltip="Names for the legend, one per line, in the order of the inputs. An empty line leaves the "
                    "name of the input.",
                ),
                io.Combo.Input(
                    "scale",
                    options=[LOG, LINEAR, LOG_SNR],
                    tooltip="What the upper axis measures, and the steps with it: sigma on a logarithmic axis, sigma, "
                    "or log-SNR = log(alpha^2 / sigma^2).",
                ),
                io.Combo.Input(
                    "path",
                    options=["VE", "FLOW"],
                    advanced=True,
                    tooltip="For log-SNR: VE for Stable Diffusion 1, 2 and XL; FLOW for rectified flow (SD3, Flux, "
                    "Wan). Not used when a model is wired.",
                ),
                io.Combo.Input("theme", options=["dark", "light"], advanced=True, tooltip="The ground of the picture."),
                io.Int.Input(
                    "width",
                    default=768,
                    min=256,
                    max=4096,
                    step=8,
                    advanced=True,
                    tooltip="Of the picture, in pixels.",
                ),
                io.Int.Input(
                    "height",
                    default=576,
                    min=256,
                    max=4096,
                    step=8,
                    advanced=True,
                    tooltip="Of the picture, in pixels.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="When wired, the path comes from the model, and the noise levels that it was trained on "
                    "are marked.",
                ),
            ],
            outputs=[io.Image.Output("image", tooltip="The plot.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, sigmas, names, scale, path, theme, width, height, model=None) -> io.NodeOutput:
        with named("Plot Sigmas"):
            sampling = None if model is None else sampling_of(model)
            chosen = {"VE": VE, "FLOW": FLOW}[path] if sampling is None else path_of(sampling)
            look = Look(scale, chosen, theme, width, height)
            picture = draw(titled(sigmas, names), look, trained_or_none(sampling)).pixels()
        image = torch.from_numpy(picture)[None] / 255.0
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def trained_or_none(sampling: Any) -> Trained | None:
    """What the model was trained on, for its marks; a model without a table has none."""
    return None if getattr(sampling, "sigmas", None) is None else trained_of(sampling)


def titled(sigmas: Mapping[str, torch.Tensor], names: str) -> list[tuple[str, str, tuple[float, ...]]]:
    """Input, as a prompt names it, name and values of each schedule, checked, in the order of the inputs."""
    inputs = sorted(sigmas, key=lambda each: int(each.rpartition("_")[2]))
    lines = [line.strip() for line in names.splitlines()]
    return [
        (place, next(iter(lines[i : i + 1]), "") or each.replace("_", " "), levels(place, sigmas[each]))
        for i, each in enumerate(inputs)
        for place in (f"sigmas.{each}",)
    ]


def levels(name: str, sigmas: Any) -> tuple[float, ...]:
    values = read_sigmas(sigmas, name)
    if len(values) < 2:
        problem = f"has the shape [{len(values)}], and a schedule is a list of two noise levels or more"
        raise InputError(name, problem, "wire the SIGMAS of a schedule with at least one step")
    for index, sigma in enumerate(values):
        if not 0.0 <= sigma < math.inf:
            problem = f"is {sigma:g}, and a noise level is a number from 0 up"
            raise InputError(name, problem, "look at the node that makes these SIGMAS", index)
    return values
