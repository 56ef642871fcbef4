"""The node that makes a NOISE."""

import re

from comfy_api.latest import io

from ..samplers.noise import SEEDS
from ..samplers.parameters import InputError
from .host.seeds import SeededNoise
from .shared.messages import named


def listed_seeds(text: str) -> tuple[int, ...]:
    """The numbers of a written list, between commas or white space. Raises InputError for what is none."""
    words = [word for word in re.split(r"[,;\s]+", text) if word]
    for index, word in enumerate(words):
        if not (word.isascii() and word.isdigit() and int(word) < SEEDS):
            raise InputError(
                "seeds", f"is {word!r}", "write whole numbers from 0 to 2^64 - 1, such as 7, 12, 100", index
            )
    return tuple(int(word) for word in words)


class StepwiseNoise(io.ComfyNode):
    """Starting noise with a seed per image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        number = {"min": 0, "max": SEEDS - 1}
        return io.Schema(
            node_id="StepwiseNoise",
            display_name="Noise (Stepwise)",
            category="stepwise/noise",
            description="A seed for every image of the batch, so that each can be made again alone; and variations.",
            search_aliases=["random noise", "seed", "batch", "variation", "subseed", "slerp", "stepwise"],
            inputs=[
                io.Int.Input(
                    "seed", default=0, **number, control_after_generate=True, tooltip="The seed of the first image."
                ),
                io.Int.Input(
                    "seed_step",
                    default=1,
                    advanced=True,
                    min=0,
                    max=1000000,
                    tooltip="Image i, counted from 0, has seed + i * seed_step. 0 gives all images one seed, for "
                    "variations of one picture.",
                ),
                io.String.Input(
                    "seeds",
                    default="",
                    tooltip="A seed for each image, for example 7, 12, 100. Instead of seed and seed_step.",
                ),
                io.Int.Input(
                    "variation_seed",
                    default=0,
                    **number,
                    tooltip="Seed of the noise to vary towards: variation_seed + i for image i.",
                ),
                io.Float.Input(
                    "variation_strength",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="0 is the image of its own seed, 1 that of the variation seed; between them the noise "
                    "turns from one to the other.",
                ),
            ],
            outputs=[io.Noise.Output("noise", tooltip="Starting noise, for any node that takes a NOISE.")],
        )

    @classmethod
    def execute(cls, seed, seed_step, seeds, variation_seed, variation_strength) -> io.NodeOutput:
        with named("Noise (Stepwise)"):
            listed = listed_seeds(seeds)
        return io.NodeOutput(SeededNoise(seed, seed_step, listed, variation_seed, float(variation_strength)))
