"""The nodes of the shipped model Digits, and a grid of images."""

import re

from comfy_api.latest import io
from torch import Tensor

from ..samplers.parameters import quoted
from .host.digits import NO_CLASS, VARIANTS, digits_model, digits_vae, label_embeddings
from .host.small_models import host_model
from .shared.images import image_grid

# `host_model` was here, and scripts find it here.
__all__ = ["NODES", "StepwiseDigit", "StepwiseDigitsModel", "StepwiseImageGrid", "host_model"]


def parse_labels(text: str) -> list[int]:
    """ "3" -> [3], "0,1,2" -> [0, 1, 2], "0-3" -> [0, 1, 2, 3], "7 0-2" -> [7, 0, 1, 2], "" -> [NO_CLASS]."""
    entries = re.sub(r"\s*-\s*", "-", text).replace(",", " ").split()
    labels = []
    for index, entry in enumerate(entries, start=1):
        match = re.fullmatch(r"([0-9])(?:-([0-9]))?", entry)
        if match is None:
            raise ValueError(
                f"StepwiseDigit, labels: entry {index} is {quoted(entry)}, which is neither a digit nor a range of "
                "digits. Write digits 0 to 9 with commas between them (3 or 0,1,2), a range (0-9), "
                "or leave it empty for no class."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        labels.extend(range(first, last + 1) if first <= last else range(first, last - 1, -1))
    return labels or [NO_CLASS]


class StepwiseDigitsModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseDigitsModel",
            display_name="Digits Model",
            category="stepwise/demo",
            description="A tiny diffusion model of handwritten digits that comes with the pack: nothing to download, "
            "seconds per picture on any computer. Use it with an Empty Latent Image of 64 x 64.",
            search_aliases=["demo model", "mnist", "tiny model", "test model"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=list(VARIANTS),
                    default="standard",
                    tooltip="standard: for every sampler, from 10 steps. "
                    "lcm: distilled for the LCM sampler, 4 to 8 steps, cfg 1 to 2. "
                    "flow: the standard network as a flow model, of the family of SD3, Flux and Wan.",
                ),
            ],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, variant: str) -> io.NodeOutput:
        return io.NodeOutput(digits_model(variant), digits_vae())


class StepwiseDigit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseDigit",
            display_name="Digit",
            category="stepwise/demo",
            description="Says which digits the Digits Model draws: the place of a text prompt.",
            search_aliases=["digit prompt", "class label", "digits conditioning"],
            inputs=[
                io.String.Input(
                    "labels",
                    default="0-9",
                    placeholder="empty = no class",
                    tooltip="One digit (3), several (0,1,2) or a range (0-9). Image 1 of the batch gets the first, "
                    "image 2 the second, and so on, from the start again when the batch is longer. "
                    "Empty means no class: use it as the negative.",
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, labels: str) -> io.NodeOutput:
        return io.NodeOutput([[label_embeddings(parse_labels(labels)), {}]])


class StepwiseImageGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseImageGrid",
            display_name="Image Grid",
            category="stepwise/demo",
            description="Puts the images of a batch side by side in one picture, pixel for pixel.",
            search_aliases=["contact sheet", "collage", "batch to image", "montage"],
            inputs=[
                io.Image.Input("images", tooltip="A batch of images."),
                io.Int.Input("columns", default=10, min=1, max=1024, tooltip="How many images stand in one row."),
                io.Int.Input("gap", default=8, min=0, max=1024, tooltip="Black pixels between two images."),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images: Tensor, columns: int, gap: int) -> io.NodeOutput:
        return io.NodeOutput(image_grid(images, columns, gap))


NODES = [StepwiseDigitsModel, StepwiseDigit, StepwiseImageGrid]
