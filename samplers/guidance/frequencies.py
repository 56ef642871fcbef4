"""Guidance of coarse and of fine structure apart."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from ..parameters import Param
from .model_call import Call, unpacked


def decoupled(
    call: Call,
    cond: Tensor,
    uncond: Tensor,
    *,
    low: Annotated[
        float,
        Param(
            "Share of the guidance that coarse structure gets; 1 is plain guidance, 0 guides details alone.",
            0.0,
            4.0,
            0.01,
        ),
    ] = 0.44,
) -> Tensor:
    """Frequency-decoupled guidance: uncond + w_high (d - d_low) + w_low d_low   (Sadat et al. 2025, algorithm 2).

    d = cond - uncond, and d_low is its lower level in a Laplacian pyramid of two, brought back to full size; w_high is
    the guider's scale and w_low = 1 + low (scale - 1), so that scale 1 is the conditional prediction. The default makes
    5 of 10, the paper's for Stable Diffusion XL. A video is taken frame by frame, a row of values as a line. Odd sides
    are made even by the value before the last.
    """
    if low == 1.0:
        return uncond

    def away(cond: Tensor, uncond: Tensor) -> Tensor:
        return torch.add(uncond, coarse(cond - uncond), alpha=1.0 - low)

    return unpacked(call, away, cond, uncond)


def coarse(image: Tensor) -> Tensor:
    """The lower level of a Laplacian pyramid of two in full size, over the last two axes behind the channels, or one.

    Down: the binomial filter (1, 4, 6, 4, 1) / 16 along each axis, then the means of two by two. Up: bilinear, then the
    same filter. At the edges the image is reflected.
    """
    height, width = image.shape[-2:] if image.ndim > 3 else (1, image.shape[-1])
    flat = image.reshape(-1, 1, height, width)
    odd = (width % 2 if width > 1 else 0, height % 2 if height > 1 else 0)
    if any(odd):
        flat = functional.pad(flat, (0, odd[0], 0, odd[1]), "reflect")
    sides = [2 if side > 1 else 1 for side in (height, width)]
    smaller = functional.avg_pool2d(blurred(flat, sides), sides)
    whole = functional.interpolate(smaller, size=flat.shape[-2:], mode="bilinear", align_corners=False)
    return blurred(whole, sides)[..., :height, :width].reshape(image.shape)


def blurred(flat: Tensor, sides: list[int]) -> Tensor:
    """The binomial filter of five along the axes whose side is 2: the mean of two neighbours, four times."""
    vertical, horizontal = (2 * (side - 1) for side in sides)
    # To reflect two values, there must be three.
    reflects = all(length > 2 for length, side in zip(flat.shape[-2:], sides, strict=True) if side > 1)
    flat = functional.pad(flat, (horizontal, horizontal, vertical, vertical), "reflect" if reflects else "replicate")
    for _ in range(4):
        flat = functional.avg_pool2d(flat, sides, stride=1)
    return flat
