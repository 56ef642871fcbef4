"""Repairs of the combined prediction."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from ..parameters import Param
from ..path import Path
from .model_call import Call, apart, per_image


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
            "Whose contrast is kept: velocity is what v-prediction and flow models put out, denoised the clean image."
        ),
    ] = "velocity",
) -> Tensor:
    """Rescaled guidance: (phi std(v_cond) / std(v) + 1 - phi) v   (Lin, Liu, Li and Yang 2024, eqs. 15 and 16).

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
