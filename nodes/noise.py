"""The node that makes a NOISE."""

import re
from typing import Any

from comfy_api.latest import io

from ..samplers import FLOW
from ..samplers.noise import SEEDS
from ..samplers.parameters import InputError
from .host.latents import LATENT_CURE, check_finite, is_latent, packed, unpacked
from .host.models import path_of, sampling_of
from .host.seeds import NOISE_FROM_LATENT, LatentNoise, SeededNoise, components_of, nested
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
                io.Combo.Input(
                    "start",
                    options=["noise", "none"],
                    optional=True,
                    advanced=True,
                    tooltip="none: no starting noise, for the second part of a run, whose latent has noise already. "
                    "What the sampler adds on the way keeps these seeds.",
                ),
            ],
            outputs=[io.Noise.Output("noise", tooltip="Starting noise, for any node that takes a NOISE.")],
        )

    @classmethod
    def execute(cls, seed, seed_step, seeds, variation_seed, variation_strength, start="noise") -> io.NodeOutput:
        with named("Noise (Stepwise)"):
            listed = listed_seeds(seeds)
        numbers = (seed, seed_step, listed, variation_seed, float(variation_strength))
        return io.NodeOutput(SeededNoise(*numbers, starts=start == "noise"))


class StepwiseNoiseFromLatent(io.ComfyNode):
    """A latent as starting noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseNoiseFromLatent",
            display_name=NOISE_FROM_LATENT,
            category="stepwise/noise",
            description="Takes a latent for the starting noise: a picture unsampled to noise, or noise of your own.",
            search_aliases=["unsample", "inversion", "inverted noise", "custom noise", "latent to noise", "stepwise"],
            inputs=[
                io.Latent.Input("latent", tooltip="What to begin from, with an image for each image of the run."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="For a latent that a sampler gave: the model of that run, whose latent format and noise "
                    "scale are undone. Leave it out for noise that you made yourself.",
                ),
                io.Boolean.Input(
                    "normalise",
                    default=False,
                    tooltip="Bring each image to mean 0 and standard deviation 1, as starting noise has them.",
                ),
            ],
            outputs=[io.Noise.Output("noise", tooltip="Starting noise, for any node that takes a NOISE.")],
        )

    @classmethod
    def execute(cls, latent, normalise, model=None) -> io.NodeOutput:
        with named(NOISE_FROM_LATENT):
            samples = read_samples(latent["samples"])
            if model is not None:
                samples = in_model_space(model, samples)
            return io.NodeOutput(LatentNoise(normalised(samples) if normalise else samples))


def read_samples(samples: Any) -> Any:
    """Raises InputError for what is no latent, or holds what is not finite."""
    if not is_latent(samples):
        raise InputError("latent", "is not a LATENT", LATENT_CURE)
    for part in components_of(samples):
        if part.ndim < 2 or not part.numel() or not part.is_floating_point():
            raise InputError("latent", f"has the shape {tuple(part.shape)} of {part.dtype}", LATENT_CURE)
        check_finite("latent", part, "look at the node that makes this latent")
    return samples


def in_model_space(model: Any, samples: Any) -> Any:
    """A LATENT as a run on `model` has its x, and of a flow model's noise what it is before the model scales it."""
    sampling = sampling_of(model)
    scale = float(getattr(sampling, "noise_scale", 1.0)) if path_of(sampling) is FLOW else 1.0
    made = model.model.process_latent_in(packed(samples)) / scale
    return unpacked(made, samples)


def normalised(samples: Any) -> Any:
    """Each image, component by component, less its mean and over its standard deviation. Raises InputError for an image
    that is one value everywhere."""
    parts = []
    for part in components_of(samples):
        values = part.double().flatten(1)
        deviations = values.std(dim=1, correction=0, keepdim=True)
        if not bool((deviations > 0.0).all()):
            index = (deviations.flatten() > 0.0).tolist().index(False)
            problem = "is one value everywhere, which no factor makes noise"
            raise InputError("latent", problem, "turn normalise off, or wire a latent with noise in it", index)
        made = (values - values.mean(dim=1, keepdim=True)) / deviations
        parts.append(made.reshape(part.shape).to(part.dtype))
    return nested(parts)
