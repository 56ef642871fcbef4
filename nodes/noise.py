"""Where noise comes from: the node that makes a NOISE, and what samplers add on the way."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.nested_tensor
import torch
from comfy_api.latest import io

from ..samplers import AddressedNoise, BrownianNoise, Path, varied
from ..samplers.noise import SEEDS, arc
from ..samplers.parameters import InputError
from ..samplers.plan import NoiseSource
from .errors import named

KINDS = {"independent": lambda path, *rest: AddressedNoise(*rest), "brownian": BrownianNoise}


@dataclass(frozen=True)
class ImageSeeds:
    """The seeds of the images of a batch, and those of their variations with the strength of these."""

    seeds: tuple[int, ...]
    variation_seeds: tuple[int, ...] = ()
    variation_strength: float = 0.0

    def __str__(self) -> str:
        varied = f", {self.variation_strength:g} of the way to {shown(self.variation_seeds)}"
        return shown(self.seeds) + (varied if self.variation_strength else "")

    @staticmethod
    def counted(seed: int, images: int) -> "ImageSeeds":
        return ImageSeeds(tuple((seed + i) % SEEDS for i in range(images)))


def shown(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def in_sampler_noise(
    kind: str,
    path: Path,
    seeds: ImageSeeds,
    device: torch.device | str = "cpu",
    scale: float = 1.0,
    components: Sequence[int] = (),
) -> NoiseSource:
    """What a sampler adds, image by image; a variation is turned towards its own noise, as the starting noise is."""
    make = KINDS[kind]
    first = make(path, seeds.seeds, device, scale, components)
    if not seeds.variation_strength:
        return first
    return varied(first, make(path, seeds.variation_seeds, device, scale, components), seeds.variation_strength)


def indices(latent: Mapping[str, Any]) -> list[int]:
    """Which image of its original batch each one is: what Latent From Batch notes down, else its place."""
    noted = latent.get("batch_index")
    return list(range(parts_of(latent["samples"])[0].shape[0])) if noted is None else [int(i) for i in noted]


def image_seeds(noise: Any, latent: Mapping[str, Any]) -> ImageSeeds:
    """The seeds of the images under any NOISE: ours knows them, for others image i has seed + i."""
    if isinstance(noise, SeededNoise):
        return noise.image_seeds(latent)
    return ImageSeeds(tuple((noise.seed + i) % SEEDS for i in indices(latent)))


def parts_of(samples: Any) -> list[torch.Tensor]:
    """The components of a latent: video and audio, or the latent alone."""
    return list(samples.unbind()) if samples.is_nested else [samples]


def component_sizes(samples: Any) -> tuple[int, ...]:
    """Numbers of an image in each component of a nested latent, which the host packs into one row; else nothing."""
    return tuple(part[0].numel() for part in samples.unbind()) if samples.is_nested else ()


def packed_sizes(guider: Any) -> tuple[int, ...]:
    """`component_sizes` of what a guider is sampling, for models that are told the shapes of what was packed."""
    for conds in getattr(guider, "conds", {}).values():
        for cond in conds:
            shapes = cond.get("model_conds", {}).get("latent_shapes")
            if shapes is not None and len(shapes.cond) > 1:
                return tuple(torch.Size(shape[1:]).numel() for shape in shapes.cond)
    return ()


class SeededNoise:
    """A NOISE whose images have seeds of their own: by count from `seed`, or written out."""

    def __init__(
        self,
        seed: int,
        seed_step: int = 1,
        listed: Sequence[int] = (),
        variation_seed: int = 0,
        variation_strength: float = 0.0,
    ):
        self.seed = listed[0] if listed else seed
        self.first, self.seed_step, self.listed = seed, seed_step, tuple(listed)
        self.variation_seed, self.variation_strength = variation_seed, variation_strength

    def image_seeds(self, latent: Mapping[str, Any]) -> ImageSeeds:
        """Raises InputError where the list is too short."""
        places = indices(latent)
        if self.listed and max(places) >= len(self.listed):
            problem = f"has {len(self.listed)} numbers, and there is an image {max(places)}, counted from 0"
            raise InputError("seeds", problem, "write a seed for every image, or leave it empty")
        own = tuple(self.listed[i] if self.listed else (self.first + i * self.seed_step) % SEEDS for i in places)
        if not self.variation_strength:
            return ImageSeeds(own)
        others = tuple((self.variation_seed + i) % SEEDS for i in places)
        return (
            ImageSeeds(others) if self.variation_strength == 1.0 else ImageSeeds(own, others, self.variation_strength)
        )

    def generate_noise(self, input_latent: Mapping[str, Any]) -> Any:
        """What core's RandomNoise makes for each image's seed on a batch of that image alone."""
        samples = input_latent["samples"]
        with named("Noise (Stepwise)"):
            seeds = self.image_seeds(input_latent)
        first = drawn(seeds.seeds, samples)
        if not seeds.variation_strength:
            return first
        near, far = arc(seeds.variation_strength)
        second = drawn(seeds.variation_seeds, samples)
        return nested([a * near + b * far for a, b in zip(parts_of(first), parts_of(second), strict=True)])


def drawn(seeds: Sequence[int], samples: Any) -> Any:
    """Standard normal noise like `samples`, each image from its own generator; its components one after the other."""
    images = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shapes = [((1, *part.shape[1:]), part.dtype) for part in parts_of(samples)]
        images.append([torch.randn(shape, generator=generator).to(dtype) for shape, dtype in shapes])
    return nested([torch.cat(parts) for parts in zip(*images, strict=True)])


def nested(parts: Sequence[torch.Tensor]) -> Any:
    return parts[0] if len(parts) == 1 else comfy.nested_tensor.NestedTensor(parts)


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
