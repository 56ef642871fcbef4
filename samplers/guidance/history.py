"""What rules remember from step to step, and the rules that are made of it."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from ..parameters import Param
from .model_call import Call


def remembered(call: Call) -> Tensor | None:
    """What was remembered at the first call of the step before; None in the first step. To be asked once a call."""
    now, before = f"{call.key}.now", f"{call.key}.before"
    if not call.advances:
        return call.memory.get(before)
    last = call.memory.pop(now, None)
    call.memory.pop(before, None)
    if last is not None:
        call.memory[before] = last
    return last


def remember(call: Call, value: Tensor) -> Tensor:
    """`value`, for the step after this one if it is of the first call of a step."""
    if call.advances:
        call.memory[f"{call.key}.now"] = value
    return value


def momentum(
    call: Call,
    denoised: Tensor,
    *,
    alpha: Annotated[float, Param("How far the velocity is moved away from its own past.", 0.0, 10.0, 0.01)] = 0.5,
    beta: Annotated[
        float, Param("How long the past counts: 0 is the step before alone, near 1 all steps.", 0.0, 0.999, 0.01)
    ] = 0.6,
) -> Tensor:
    """Momentum guidance: v' = v + alpha (v - m), then m = (1 - beta) v + beta m   (Liao et al. 2026, eqs. 11 and 12).

    v = (x - denoised) / sigma is the velocity of the guided prediction, and m, which begins as the first one, the mean
    of those before, at the first call of each step. It needs no further evaluation and acts at guidance 1 too. With
    alpha 1/2 and beta 0, Euler's method on steps of equal length becomes the one of Adams and Bashforth of order 2. The
    velocity is dx/dsigma on every model; the paper's are flow models.
    """
    if alpha == 0.0:
        return denoised
    v = (call.x - denoised) / call.sigma
    m = remembered(call)
    if m is None:
        remember(call, v)
        return denoised
    remember(call, torch.lerp(v, m, beta))
    return torch.sub(denoised, v - m, alpha=alpha * call.sigma)


def sliding(
    call: Call,
    cond: Tensor,
    uncond: Tensor,
    *,
    gain: Annotated[
        float, Param("Size K of the correction, in units of the velocity; 0 is plain guidance.", 0.0, 10.0, 0.01)
    ] = 0.2,
    decay: Annotated[
        float, Param("How fast, as lambda, guidance is to die away from step to step.", 0.0, 100.0, 0.1)
    ] = 5.0,
    form: Annotated[
        Literal["conditional", "published"],
        Param(
            "conditional makes guidance 1 the positive prompt alone; published is the form of the authors' program, "
            "in which the correction acts there too.",
            rare=True,
        ),
    ] = "conditional",
) -> Tensor:
    """SMC-CFG: e' = e - K sign(s), s = e - e'_last + lambda e'_last   (Wang et al. 2026, in their program's form).

    e = v_cond - v_uncond is the difference of the velocities (x - denoised) / sigma, and e'_last what was made of it at
    the first call of the step before; in the first step it is e itself. The guided velocity is v_cond + (scale - 1) e',
    and in the published form v_uncond + scale e'. The sign is that of each value by itself. The default is the one of
    the authors' examples.
    """
    if gain == 0.0:
        return uncond
    e = (cond - uncond) / call.sigma
    last = remembered(call)
    s = e * decay if last is None else torch.add(e, last, alpha=decay - 1.0)
    switch = s.sign_()
    remember(call, torch.sub(e, switch, alpha=gain))
    strength = 1.0 if form == "conditional" else call.scale / (call.scale - 1.0)
    return torch.add(uncond, switch, alpha=strength * gain * call.sigma)
