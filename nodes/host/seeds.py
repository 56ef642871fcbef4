"""The seeds of the images of a batch, their starting noise, and what samplers add on the way."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import comfy.nested_tensor
import torch

from ...samplers import AddressedNoise, BrownianNoise, Path, varied
from ...samplers.noise import SEEDS, arc
from ...samplers.parameters import InputError, counted, quoted
from ...samplers.plan import NoiseSource
from ..shared.messages import named

NOISE_FROM_LATENT = "Noise from Latent"
NOISE_KINDS = {"independent": lambda path, *rest: AddressedNoise(*rest), "brownian": BrownianNoise}


# What a NOISE lacks, and the cure.
UNSEEDED = (
    "has no seed but 0: what {} adds on the way is of seed 0, whatever the first part of the run had",
    "wire Noise (Stepwise) with that seed and with start at none",
)
AT_NOTHING = (
    "gives no starting noise, and at noise level 1 nothing of latent_image is left: every image begins from 0",
    "wire Noise (Stepwise), or Noise from Latent with noise of your own, or begin below 1",
)


@dataclass(frozen=True)
class ImageSeeds:
    """The seeds of the images of a batch, and those of their variations with the strength of these."""

    seeds: tuple[int, ...]
    variation_seeds: tuple[int, ...] = ()
    variation_strength: float = 0.0

    def __str__(self) -> str:
        varied = f", {self.variation_strength:g} of the way to {shown(self.variation_seeds)}"
        return shown(self.seeds) + (varied if self.variation_strength else "")

    def of(self, image: int) -> "ImageSeeds":
        """Those of one image."""
        variation = self.variation_seeds[image : image + 1]
        return ImageSeeds(self.seeds[image : image + 1], variation, self.variation_strength)

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
    make = NOISE_KINDS[kind]
    first = make(path, seeds.seeds, device, scale, components)
    if not seeds.variation_strength:
        return first
    return varied(first, make(path, seeds.variation_seeds, device, scale, components), seeds.variation_strength)


def indices(latent: Mapping[str, Any]) -> list[int]:
    """Which image of its original batch each one is: what Latent From Batch notes down, else its place."""
    noted = latent.get("batch_index")
    return list(range(components_of(latent["samples"])[0].shape[0])) if noted is None else [int(i) for i in noted]


def image_seeds(noise: Any, latent: Mapping[str, Any]) -> ImageSeeds:
    """The seeds of the images under any NOISE: ours knows them, for others image i has seed + i."""
    if isinstance(noise, SeededNoise):
        return noise.image_seeds(latent)
    seed = seed_of(noise)
    return ImageSeeds(tuple((seed + i) % SEEDS for i in indices(latent)))


def has_seeds(noise: Any) -> bool:
    """Whether a NOISE of ours was given its seed, be it 0."""
    return isinstance(noise, (SeededNoise, ZeroNoise))


def seed_of(noise: Any) -> int:
    """The seed of any NOISE; one that has none counts as 0, as Disable Noise does.

    Raises InputError for what is no whole number.
    """
    seed = getattr(noise, "seed", None)
    if seed is None:
        return 0
    if not isinstance(seed, int):
        problem = f"has the seed {quoted(seed)}, and a seed is a whole number"
        raise InputError("noise", problem, "wire Noise (Stepwise) or RandomNoise")
    return seed


def reseeded(noise: Any, seed: int) -> Any:
    """A NOISE like this one, whose first image has this seed. Raises InputError for one that has none."""
    if isinstance(noise, SeededNoise):
        rest = (noise.variation_seed, noise.variation_strength, noise.starts)
        return SeededNoise(seed, noise.seed_step, (), *rest)
    if getattr(noise, "seed", None) is None:
        raise InputError("noise", "has no seed to change", "wire Noise (Stepwise) or RandomNoise")
    made = copy(noise)
    made.seed = seed
    return made


def components_of(samples: Any) -> list[torch.Tensor]:
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
    """A NOISE whose images have seeds of their own: by count from `seed`, or written out.

    One that does not start a run keeps them for what samplers add on the way, and is zero.
    """

    def __init__(
        self,
        seed: int,
        seed_step: int = 1,
        listed: Sequence[int] = (),
        variation_seed: int = 0,
        variation_strength: float = 0.0,
        starts: bool = True,
    ):
        self.starts = starts
        self.seed = listed[0] if listed else seed
        self.first, self.seed_step, self.listed = seed, seed_step, tuple(listed)
        self.variation_seed, self.variation_strength = variation_seed, variation_strength

    def image_seeds(self, latent: Mapping[str, Any]) -> ImageSeeds:
        """Raises InputError where the list is too short."""
        places = indices(latent)
        if self.listed and max(places) >= len(self.listed):
            problem = f"has {counted(len(self.listed), 'number')}, and there is an image {max(places)}, counted from 0"
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
        if not self.starts:
            return zeros_like(samples)
        first = starting_noise(seeds.seeds, samples)
        if not seeds.variation_strength:
            return first
        near, far = arc(seeds.variation_strength)
        second = starting_noise(seeds.variation_seeds, samples)
        return nested([a * near + b * far for a, b in zip(components_of(first), components_of(second), strict=True)])


class ZeroNoise:
    """A NOISE of nothing that keeps its seed, for what the sampler adds on the way."""

    def __init__(self, seed: int):
        self.seed = seed

    def generate_noise(self, input_latent: Mapping[str, Any]) -> Any:
        return zeros_like(input_latent["samples"])


class LatentNoise:
    """A NOISE that is a latent. It has no seed, which counts as 0."""

    seed = 0

    def __init__(self, samples: Any):
        self.samples = samples

    def generate_noise(self, input_latent: Mapping[str, Any]) -> Any:
        """The latent itself; raises ValueError where it is of another form than what it is to start."""
        latents = (input_latent["samples"], self.samples)
        wanted, ours = ([tuple(part.shape) for part in components_of(each)] for each in latents)
        if wanted != ours:
            with named(NOISE_FROM_LATENT):
                raise misfit(ours, wanted)
        return nested([part.to("cpu", copy=True) for part in components_of(self.samples)])


def misfit(ours: Sequence[tuple[int, ...]], wanted: Sequence[tuple[int, ...]]) -> InputError:
    """What is wrong with a latent of these shapes as the noise of one of those."""
    if [shape[1:] for shape in ours] == [shape[1:] for shape in wanted]:
        problem = f"is a batch of {ours[0][0]}, and the latent to sample is a batch of {wanted[0][0]}"
        return InputError("latent", problem, "give both as many images, with Repeat Latent Batch or Latent From Batch")
    forms = (" and ".join("x".join(map(str, shape)) for shape in shapes) for shapes in (ours, wanted))
    problem = "has the shape {}, and the latent to sample has {}".format(*forms)
    return InputError("latent", problem, "make both for one model and one size")


def zeros_like(samples: Any) -> Any:
    return nested([torch.zeros_like(each) for each in components_of(samples)])


def starting_noise(seeds: Sequence[int], samples: Any) -> Any:
    """Standard normal noise like `samples`, each image from its own generator; its components one after the other."""
    images = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shapes = [((1, *part.shape[1:]), part.dtype) for part in components_of(samples)]
        images.append([torch.randn(shape, generator=generator).to(dtype) for shape, dtype in shapes])
    return nested([torch.cat(components) for components in zip(*images, strict=True)])


def nested(components: Sequence[torch.Tensor]) -> Any:
    return components[0] if len(components) == 1 else comfy.nested_tensor.NestedTensor(components)
