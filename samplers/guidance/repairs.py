"""Repairs of the combined prediction."""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..parameters import Param
from ..path import Path
from .model_call import Call, apart, per_image, unpacked


def velocity_anchor(call: Call) -> float:
    """s such that the velocity is proportional to denoised - s x: v-prediction on VE, the model's output on FLOW.

    On VE v = (x / sigma - denoised / sigma (1 + sigma^2)) / sqrt(1 + sigma^2), so s = 1 / (1 + sigma^2); on FLOW
    v = (x - denoised) / sigma, so s = 1.
    """
    return 1.0 if call.path is Path.FLOW else 1.0 / (1.0 + call.sigma * call.sigma)


def rescale(
    call: Call,
    denoised: Tensor,
    cond: Tensor,
    *,
    phi: Annotated[
        float,
        Param("How much of the rescaled prediction is taken: 0 is plain guidance, 1 rescales fully.", 0.0, 1.0, 0.01),
    ] = 0.7,
    space: Annotated[
        Literal["velocity", "denoised"],
        Param(
            "Whose contrast is kept: velocity is what v-prediction and flow models put out, denoised the clean image.",
            rare=True,
        ),
    ] = "velocity",
) -> Tensor:
    """Rescaled guidance: (phi std(v_cond) / std(v) + 1 - phi) v   (Lin, Liu, Li and Yang 2023, eqs. 14 to 16).

    v is the guided prediction, with the standard deviation taken over each image. The paper's models put out the
    velocity; `space` = denoised keeps the contrast of the clean image instead. phi = 0.7 is the paper's. An affine map
    leads from the velocity to the denoised image, denoised = s x + c v, so that only s matters.
    """
    s = velocity_anchor(call) if space == "velocity" else 0.0

    def rescaled(x: Tensor, guided: Tensor, cond: Tensor) -> Tensor:
        v_cond, v = (cond, guided) if s == 0.0 else (torch.sub(cond, x, alpha=s), torch.sub(guided, x, alpha=s))
        ratio = per_image(torch.std, v_cond) / per_image(torch.std, v)
        # Two images without contrast need no rescaling.
        return torch.addcmul(guided, v, ratio.nan_to_num_(1.0, 1.0) - 1.0, value=phi)

    return apart(call.components, rescaled, call.x, denoised, cond)


def threshold(
    call: Call,
    denoised: Tensor,
    cond: Tensor,
    *,
    percentile: Annotated[
        float, Param("Share of an image's values that must lie within the limit.", 0.5, 1.0, 0.001)
    ] = 0.995,
    limit: Annotated[
        float, Param("Range of the model's data: 1 for pixels, more for latents.", 0.01, 1000.0, 0.01)
    ] = 1.0,
) -> Tensor:
    """Dynamic thresholding: clip(denoised, -s, s) limit / s   (Saharia et al. 2022, section 2.3).

    s is the value that the share `percentile` of the image's absolute values does not exceed, but at least `limit`. An
    image whose values all lie within the limit is left as it is. The paper's models are pixel models with data from -1
    to 1; latents have no such range, and a limit too small makes them grey.
    """

    def bound(image: Tensor) -> Tensor:
        magnitudes = image.abs().flatten()
        # A share of 0.995 may come out as 0.99500000000000001 of the number of values.
        return magnitudes.kthvalue(max(math.ceil(percentile * len(magnitudes) - 1e-6), 1)).values

    def clipped(guided: Tensor) -> Tensor:
        s = per_image(bound, guided).clamp_(min=limit)
        return guided.clamp(-s, s).mul_(limit / s)

    return apart(call.components, clipped, denoised)


def channel_norm(
    call: Call,
    denoised: Tensor,
    cond: Tensor,
    *,
    strength: Annotated[
        float, Param("How much of the normed prediction is taken: 0 is plain guidance, 1 norms fully.", 0.0, 1.0, 0.01)
    ] = 1.0,
    space: Annotated[
        Literal["denoised", "noise"],
        Param(
            "denoised is the clean image, which is shortened only; noise is what the image is left of x, which is "
            "lengthened too."
        ),
    ] = "denoised",
) -> Tensor:
    """CFG Norm: y' = |y_cond| / |y| y at each place, over the channels   (ComfyUI's CFGNorm, in both of its forms).

    y is the guided prediction. In `space` denoised it is the clean image, and the ratio at most 1 (ComfyUI's default);
    in `space` noise it is x - denoised, as for Qwen-Image and models like it, and the ratio any (its `pre_cfg`). Where
    both are 0 nothing changes.
    """
    if strength == 0.0:
        return denoised

    def normed(x: Tensor, guided: Tensor, cond: Tensor) -> Tensor:
        y, y_cond = (guided, cond) if space == "denoised" else (x - guided, x - cond)
        ratio = (channel_length(y_cond) / channel_length(y)).nan_to_num_(1.0, 1.0)
        if space == "denoised":
            return torch.addcmul(guided, guided, ratio.clamp_(max=1.0) - 1.0, value=strength)
        return torch.addcmul(guided, y, 1.0 - ratio, value=strength)

    return unpacked(call, normed, call.x, denoised, cond)


def channel_length(image: Tensor) -> Tensor:
    """The Euclidean length over the channels of each place."""
    return torch.linalg.vector_norm(image, dim=1, keepdim=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
