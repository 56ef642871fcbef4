"""More prompts than two, each with a scale of its own."""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..linear_combination import combine
from ..parameters import Param
from .model_call import Call

MiddleScale = Annotated[float, Param("Guidance scale from the negative prompt to the middle one.", 0.0, 100.0, 0.1)]
Style = Annotated[
    Literal["regular", "nested"],
    Param(
        "regular adds both differences, each with its scale; nested guides the positive prompt against the middle one, "
        "and the result against the negative one."
    ),
]


def dual_weights(scale: float, *, middle_scale: float, style: str) -> Mapping[str, float]:
    """The weights of the three predictions, which sum to 1."""
    if style == "regular":
        return {"uncond": 1.0 - middle_scale, "middle": middle_scale - scale, "cond": scale}
    return {"uncond": 1.0 - middle_scale, "middle": middle_scale * (1.0 - scale), "cond": middle_scale * scale}


def dual_reads(scale: float, *, middle_scale: float, style: str) -> tuple[str, ...]:
    weights = dual_weights(scale, middle_scale=middle_scale, style=style)
    return tuple(name for name, weight in weights.items() if weight != 0.0)


def dual(
    call: Call,
    cond: Tensor | None,
    uncond: Tensor | None,
    *,
    middle: Tensor | None,
    middle_scale: MiddleScale = 3.0,
    style: Style = "regular",
) -> Tensor:
    """Two scales: uncond + middle_scale (middle - uncond) + scale (cond - middle)   (Brooks et al. 2023, eq. 3).

    That is style `regular`, with which an edited picture follows its original by `middle_scale` and the instruction by
    the guider's own scale, when the middle prompt is the original without the instruction. `nested` is
    uncond + middle_scale (m - uncond) with m = middle + scale (cond - middle). A prompt whose weight is 0 is not
    evaluated. With both scales 1 it is the conditional prediction.
    """
    given = {"uncond": uncond, "middle": middle, "cond": cond}
    weights = dual_weights(call.scale, middle_scale=middle_scale, style=style)
    terms = [
        (tensor, weight) for name, weight in weights.items() if weight != 0.0 and (tensor := given[name]) is not None
    ]
    return combine(terms)


def another_reads(scale: float, *, prompt_scale: float) -> tuple[str, ...]:
    return ("other", "uncond") if prompt_scale != 0.0 else ()


def another_avoids(*, prompt_scale: float) -> tuple[str, ...]:
    return ("other",) if prompt_scale < 0.0 else ()


def another(
    call: Call,
    denoised: Tensor,
    uncond: Tensor | None,
    *,
    other: Tensor | None,
    prompt_scale: Annotated[
        float, Param("How far towards the prompt; below 0 away from it, 0 leaves it out.", -100.0, 100.0, 0.1)
    ] = 3.0,
) -> Tensor:
    """Another prompt: denoised + prompt_scale (other - uncond)   (Liu et al. 2022, eq. 11).

    `denoised` is the guided prediction of the prompts before. Chained, it takes any number of prompts, positive and
    negative ones. With prompt_scale 0 the prompt is not evaluated.
    """
    if other is None or uncond is None:
        return denoised
    return torch.add(denoised, other - uncond, alpha=prompt_scale)
