"""The step node that shows what a SAMPLER does on the way."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..samplers.parameters import InputError
from .host.latents import joined
from .host.pictures import decoded
from .host.previews import FIRST_IMAGE, PREVIEWS
from .runs import run
from .runs.autosave import Autosave
from .runs.face import Face
from .runs.folders import check_prefix, save_new
from .runs.trajectory import ALL, Recorder, Trajectory, chosen_steps
from .runs.trajectory_text import csv, table
from .shared.drawing import MISSING, Look
from .shared.filmstrip import filmstrip
from .shared.inputs import HIDDEN, STEP_INPUTS, STEP_OUTPUTS, WINDOW_INPUTS
from .shared.messages import named
from .shared.trajectory_plot import plotted
from .shared.ways import marked

NAME, PREFIX, STEM = "Trajectory", "stepwise/trajectory", "trajectory"
PANELS = (
    ("update", "update", True),
    ("turn", "turn, degrees", False),
    ("guidance", "guidance", True),
    ("guidance_angle", "angle, degrees", False),
)


class StepwiseTrajectory(io.ComfyNode):
    """Runs any SAMPLER, and keeps what it does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        guider, *sockets = STEP_INPUTS
        sampler = io.Sampler.Input("sampler", tooltip="Any SAMPLER, of any pack.")
        return io.Schema(
            node_id="StepwiseTrajectory",
            display_name=NAME,
            category="stepwise/inspect",
            description="Takes the steps of any SAMPLER and shows what it does on the way: x and the predicted picture "
            "after chosen steps, and in figures how far each step moves, where it turns, and what guidance does.",
            search_aliases=[
                "stepwise",
                "steps",
                "filmstrip",
                "x0 at every step",
                "preview batch",
                "intermediate",
                "debug",
            ],
            inputs=[
                guider,
                sampler,
                *sockets,
                *WINDOW_INPUTS,
                io.Vae.Input("vae", optional=True, tooltip="For the filmstrip: it decodes the predicted pictures."),
                io.String.Input(
                    "steps",
                    default=ALL,
                    optional=True,
                    tooltip="The steps to keep latents of: all, as empty is, every 5, or numbers and ranges such as "
                    "1, 5, 10-20. The figures have every step.",
                ),
                io.Combo.Input(
                    "previews",
                    options=list(PREVIEWS),
                    optional=True,
                    tooltip="What is drawn while it runs: the first image of the batch, or a grid of every image.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default=PREFIX,
                    optional=True,
                    tooltip="Folder and beginning of the name of a CSV file in ComfyUI's output folder, with the "
                    "figures of every step and image; empty writes none.",
                ),
                io.Int.Input(
                    "columns",
                    default=10,
                    min=1,
                    max=100,
                    optional=True,
                    advanced=True,
                    tooltip="Steps in one line of the filmstrip; the next line begins below.",
                ),
                io.Combo.Input(
                    "theme",
                    options=["dark", "light"],
                    optional=True,
                    advanced=True,
                    tooltip="The ground of plot and filmstrip.",
                ),
            ],
            outputs=[
                *STEP_OUTPUTS,
                io.Latent.Output(
                    "x",
                    tooltip="x after each kept step, as the output of a run stopped there: a batch, "
                    "all images of a step beside each other.",
                ),
                io.Latent.Output(
                    "denoised", tooltip="The prediction of the clean latent in each kept step, in the same order."
                ),
                io.String.Output("figures", tooltip="A line for each step and image."),
                io.String.Output(
                    "file",
                    tooltip="The name of the CSV file in ComfyUI's output folder, with [output] after it, as "
                    "Load Image and others name files; empty where none was written.",
                ),
                io.Image.Output("plot", tooltip="The figures over the steps."),
                io.Image.Output("filmstrip", tooltip="The predicted picture at every kept step; empty without a VAE."),
            ],
            hidden=list(HIDDEN),
            is_output_node=True,
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls,
        guider,
        sampler,
        start_step,
        end_step,
        autosave_every=0,
        on_mismatch="error",
        noise=None,
        latent_image=None,
        sigmas=None,
        state=None,
        vae=None,
        steps=ALL,
        previews=FIRST_IMAGE,
        filename_prefix=PREFIX,
        columns=10,
        theme="dark",
    ) -> io.NodeOutput:
        autosave, face = Autosave.of(autosave_every, cls.hidden, guider), Face.of(cls.hidden)
        wired = (noise, latent_image, sigmas, state)
        with named(NAME):
            recorder = Recorder(chosen_steps(steps))
            if filename_prefix.strip():
                check_prefix(filename_prefix)
            window = (start_step, end_step, on_mismatch, autosave, face)
            output, denoised, held = run.sample(guider, sampler, *wired, *window, recorder, previews)
            seen = recorder.trajectory(guider, held)
        text, file = table(seen), saved(seen, filename_prefix, face)
        latents = [
            marked(joined(each), levels, seen.path, seen.data, *start) if each else {"samples": last["samples"]}
            for each, last, levels, start in (
                (seen.x, output, seen.levels, (seen.start, seen.began)),
                # Predictions are clean pictures.
                (seen.denoised, denoised, [0.0] * len(seen.steps), ()),
            )
        ]
        shown = film(seen, vae, columns, theme)
        made = (output, denoised, held, *latents, text, file, plot(seen, theme), shown)
        return io.NodeOutput(*made, ui={**face.after(held, state), "text": (text,)})


def saved(seen: Trajectory, filename_prefix: str, face: Face) -> str:
    """The name of the CSV file. A run that has been made is not lost where a disk is full."""
    if not filename_prefix.strip():
        return ""
    try:
        return save_new(csv(seen).encode(), filename_prefix, ".csv", STEM)[1]
    except InputError as error:
        face.say(str(error))
        return ""


def film(seen: Trajectory, vae: Any, columns: int, theme: str) -> Tensor:
    """The predicted pictures of the kept steps, decoded a step at a time."""
    if vae is None or not seen.denoised:
        return torch.zeros(1, 1, 1, 3)
    levels = {row.step: row.sigma for row in seen.rows}
    labels = [(f"step {step}", f"{levels[step]:.3g}") for step in seen.steps]
    return filmstrip([decoded(vae, each) for each in seen.denoised], labels, columns, theme)


def plot(seen: Trajectory, theme: str) -> Tensor:
    """The figures over the steps. A run that has been made is not lost for the want of a package that draws."""
    if not seen.rows:
        return torch.zeros(1, 1, 1, 3)
    steps, images = [row.step for row in seen.rows], range(len(seen.rows[0].figures["update"]))
    panels = [(title, values(seen, name, images), log) for name, title, log in PANELS]
    try:
        pixels = plotted(steps, panels, Look(theme=theme, height=768))
    except ImportError:
        logging.warning(MISSING)
        return torch.zeros(1, 1, 1, 3)
    return torch.from_numpy(pixels)[None] / 255.0


def values(seen: Trajectory, name: str, images: Sequence[int]) -> list[list[float]]:
    """A figure over the steps, image by image."""
    return [[row.figures[name][image] for row in seen.rows] for image in images]
