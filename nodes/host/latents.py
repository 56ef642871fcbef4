"""The LATENT and the NOISE that links carry, looked over before a model sees them."""

import math
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import comfy.nested_tensor
import comfy.sample
import comfy.utils
import torch

from ...samplers.parameters import InputError, counted, quoted
from .seeds import components_of

LATENT_CURE = "wire Empty Latent Image or VAE Encode"
NOT_FINITE = "holds a value that is not finite (NaN or infinity)"


def read_latent(model_patcher: Any, latent_image: Any) -> dict[str, Any]:
    """`latent_image` with an empty latent in the model's own shape and the mask in numbers.

    Raises InputError for what cannot be sampled from.
    """
    if not isinstance(latent_image, Mapping) or not is_latent(latent_image.get("samples")):
        raise InputError("latent_image", "is not a LATENT", LATENT_CURE)
    latent = dict(latent_image)
    wired = latent["samples"]
    for part in components_of(wired):
        if not part.is_floating_point():
            kind = str(part.dtype).removeprefix("torch.")
            raise InputError("latent_image", f"holds numbers of the kind {kind}, which no latent is", LATENT_CURE)
        if part.ndim < 3 or not part.numel():
            raise InputError("latent_image", f"has the shape {tuple(part.shape)}, which holds no image", LATENT_CURE)
        check_finite("latent_image", part, "look at the node that makes this latent")
    latent["samples"] = fitting(model_patcher, wired, latent)
    images = len(components_of(wired)[0])
    check_batch_index(latent.get("batch_index"), images)
    if latent.get("noise_mask") is not None:
        latent["noise_mask"] = read_mask(latent["noise_mask"], latent["samples"])
    return latent


def is_latent(samples: Any) -> bool:
    return isinstance(samples, torch.Tensor) or bool(getattr(samples, "is_nested", False))


def positions(latent: Any) -> int:
    """How many positions a LATENT has, channels and images apart; of a nested one those of its first component.

    Raises InputError for what is none.
    """
    if not is_latent(samples := latent.get("samples")):
        raise InputError("latent", "is not a LATENT", LATENT_CURE)
    return math.prod(components_of(samples)[0].shape[2:])


def packed(samples: Any) -> torch.Tensor:
    """A latent as the host samples it: a nested one in a row."""
    return comfy.utils.pack_latents(samples.unbind())[0] if samples.is_nested else samples


def unpacked(x0: torch.Tensor, like: Any) -> Any:
    """A latent that the host samples, in the form of `like`."""
    if not like.is_nested:
        return x0
    return comfy.nested_tensor.NestedTensor(comfy.utils.unpack_latents(x0, [part.shape for part in like.unbind()]))


def fitting(model_patcher: Any, wired: Any, latent: dict[str, Any]) -> Any:
    """The samples in the model's own shape, an empty one brought there; raises InputError where they cannot be."""
    scales = (latent.pop("downscale_ratio_spacial", None), latent.pop("downscale_ratio_temporal", None))
    if wired.is_nested:
        return wired
    form = model_patcher.get_model_object("latent_format")
    samples = wired
    # A picture is a video of one frame to the host, so of two ranks that go into such a model.
    if wired.ndim in (form.latent_dimensions + 2, 4):
        samples = comfy.sample.fix_empty_latent_channels(model_patcher, wired, *scales)
    if samples.ndim != form.latent_dimensions + 2 or samples.shape[1] != form.latent_channels:
        problem = (
            f"has the shape {tuple(wired.shape)}, and the model takes "
            f"{counted(form.latent_channels, 'channel')} in {counted(form.latent_dimensions, 'dimension')}"
        )
        raise InputError("latent_image", problem, "encode the picture with this model's own VAE")
    return samples


def check_batch_index(noted: Any, images: int) -> None:
    if noted is None:
        return
    cure = "take the images out of their batch with Latent From Batch again"
    try:
        numbers = [index(each) for each in (noted.tolist() if isinstance(noted, torch.Tensor) else noted)]
    except TypeError:
        numbers = [-1]
    if min(numbers, default=0) < 0:
        raise InputError("latent_image", f"has a batch_index that is {quoted(noted, 40)}, no whole numbers", cure)
    if len(numbers) != images:
        problem = f"has a batch_index of {counted(len(numbers), 'number')} and {counted(images, 'image')}"
        raise InputError("latent_image", problem, cure)


def read_mask(mask: Any, samples: Any) -> Any:
    """A mask as the host takes it, in float32 where it held truth values or whole numbers.

    The host uses the masks of a batch in turn, and drops what is too many; which image has which is sure only where
    that comes out even.
    """
    if not is_latent(mask):
        problem = f"has a noise_mask that is a {type(mask).__name__}"
        raise InputError("latent_image", problem, "wire a MASK into Set Latent Noise Mask")
    for part in components_of(mask):
        if part.ndim < 2 or not part.numel():
            problem = f"has a noise_mask of the shape {tuple(part.shape)}, which holds no image"
            raise InputError("latent_image", problem, "wire a MASK with an image into Set Latent Noise Mask")
        if not torch.isfinite(part).all():
            problem = f"has a noise_mask that {NOT_FINITE}"
            raise InputError("latent_image", problem, "look at the node that makes this mask")
    # The masks of a video are those of its frames.
    if not samples.is_nested and not mask.is_nested and samples.ndim == 4:
        masks, images = mask.shape[:-2].numel(), len(samples)
        if images % masks:
            problem = f"has a noise_mask of {counted(masks, 'image')}, and {counted(images, 'image')}"
            raise InputError("latent_image", problem, "give one mask for all images, or one for each")
    return mask if mask.is_nested or mask.is_floating_point() else mask.float()


def read_noise(noise: Any, latent: Mapping[str, Any]) -> Any:
    """The starting noise of a NOISE for `latent`; raises InputError for noise that does not fit it."""
    made, samples = noise.generate_noise(dict(latent)), latent["samples"]
    if not is_latent(made) or made.is_nested != samples.is_nested:
        cure = "wire Noise (Stepwise) or RandomNoise"
        raise InputError("noise", "makes something else than noise of the latent's form", cure)
    for part, like in zip(components_of(made), components_of(samples), strict=True):
        if len(part) != len(like) and part.shape[1:] == like.shape[1:]:
            problem = f"makes noise for a batch of {len(part)}, and latent_image is a batch of {len(like)}"
            cure = "wire Noise (Stepwise) or RandomNoise, which make noise for every image"
            raise InputError("noise", problem, cure)
        if part.shape != like.shape:
            problem = f"makes noise of the shape {tuple(part.shape)}, and latent_image has {tuple(like.shape)}"
            raise InputError("noise", problem, "wire Noise (Stepwise) or RandomNoise, which follow the latent")
        check_finite("noise", part, "look at the node that makes this noise")
    return made


def check_finite(name: str, images: torch.Tensor, cure: str) -> None:
    """Raises InputError that names the first image with a NaN or an infinity."""
    finite = torch.isfinite(images).flatten(1).all(dim=1).tolist()
    if not all(finite):
        raise InputError(name, NOT_FINITE, cure, finite.index(False))


def joined(latents: Sequence[Any]) -> Any:
    """Latents of one form as one batch; of nested ones, component by component."""
    parts = [torch.cat(same) for same in zip(*map(components_of, latents), strict=True)]
    return comfy.nested_tensor.NestedTensor(parts) if latents[0].is_nested else parts[0]
