"""What guidance moves away from: rules that put another prediction in the place of the unconditional one."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from ..parameters import Param
from ..path import Path
from .history import remember, remembered
from .model_call import Call, apart, per_image


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of two images."""
    return (a * b).sum()


def length(image: Tensor) -> Tensor:
    """Euclidean, over all its values."""
    return torch.linalg.vector_norm(image)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def share(a: Tensor, b: Tensor) -> Tensor:
    """How much of `b` is in `a`, image by image: <a, b> / <b, b>, exactly 1 where they are equal, 0 where b is 0."""
    return (per_image(dot, a, b) / per_image(dot, b, b)).nan_to_num_(0.0, 0.0, 0.0)


def apg(
    call: Call,
    cond: Tensor,
    uncond: Tensor,
    *,
    eta: Annotated[
        float,
        Param("How much of the guidance along the prediction itself is kept; 1 is plain guidance.", -10.0, 10.0, 0.01),
    ] = 0.0,
    norm_threshold: Annotated[
        float, Param("Largest length of the guidance, over the whole image; 0 sets none.", 0.0, 1000.0, 0.1)
    ] = 15.0,
    momentum: Annotated[
        float,
        Param("Weight of the earlier steps' guidance; negative values move away from it.", -5.0, 1.0, 0.01, rare=True),
    ] = -0.5,
    form: Annotated[
        Literal["paper", "comfyui"],
        Param(
            "paper guides by scale - 1, so that 1 is conditional; comfyui by scale, as ComfyUI's own APG does.",
            rare=True,
        ),
    ] = "paper",
) -> Tensor:
    """Adaptive projected guidance: denoised = cond + (scale - 1) g   (Sadat, Hilliges and Weber 2024).

    d = cond - uncond + momentum d_last, shortened to norm_threshold where it is longer,
    g = d - (1 - eta) <d, cond> / <cond, cond> cond.

    The default is the paper's for Stable Diffusion XL, at scale 15; for its class-conditional model it is a threshold
    of 2.5 and a momentum of -0.75 at scale 4. A threshold is a length over all values of an image: it grows with the
    image, as the square root of the number of its values. d_last is that of the step before, whatever the number of
    model calls in a step. With eta 1, no threshold and no momentum it is plain guidance.
    """
    if eta == 1.0 and norm_threshold == 0.0 and momentum == 0.0 and form == "paper":
        return uncond
    strength = 1.0 if form == "paper" else call.scale / (call.scale - 1.0)

    def away(cond: Tensor, d: Tensor) -> Tensor:
        kept = None
        if norm_threshold > 0.0:
            kept = (norm_threshold / per_image(length, d)).clamp_(max=1.0)
        base = cond
        if eta != 1.0:
            square = per_image(length, cond).square_()
            along = (per_image(dot, d, cond) / square).nan_to_num_(0.0, 0.0, 0.0)
            base = torch.addcmul(cond, cond, along if kept is None else along * kept, value=strength * (1.0 - eta))
        return torch.sub(base, d, alpha=strength) if kept is None else torch.addcmul(base, d, kept, value=-strength)

    d = cond - uncond
    return apart(call.components, away, cond, averaged(call, d, momentum) if momentum != 0.0 else d)


def averaged(call: Call, d: Tensor, momentum: float) -> Tensor:
    """d + momentum times what it was at the first call of the step before."""
    last = remembered(call)
    return remember(call, d if last is None else torch.add(d, last, alpha=momentum))


def zero_star(
    call: Call,
    cond: Tensor,
    uncond: Tensor,
    *,
    zero_init: Annotated[
        float,
        Param(
            "Flow models: at this noise level and above the model is not called and the picture stays as it is. "
            "Above 1 it never does.",
            0.0,
            2.0,
            0.001,
        ),
    ] = 1.0,
    zero_steps: Annotated[
        int,
        Param("Flow models: in so many first steps of a run, too, the picture stays as it is.", 0, 10000, 1, rare=True),
    ] = 0,
) -> Tensor:
    """CFG-Zero*: denoised = x - sigma (s v_uncond + scale (v_cond - s v_uncond))   (Fan et al. 2025, optimized scale).

    s = <v_cond, v_uncond> / <v_uncond, v_uncond>, image by image, is the multiple of the unconditional velocity that
    comes nearest to the conditional one; the velocity is dx/dsigma = (x - denoised) / sigma on every model.

    Zero-init: on flow models the velocity is taken as 0, and the model is not called, in steps that begin at a sigma of
    at least `zero_init`: with 1 in the first step of a run that begins at pure noise. The paper counts steps, as
    `zero_steps` does.
    """

    def away(x: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        # x - s (x - uncond), written so that s = 1 is uncond itself.
        v_uncond = x - uncond
        return torch.addcmul(uncond, v_uncond, 1.0 - share(x - cond, v_uncond))

    return apart(call.components, away, call.x, cond, uncond)


def zero_init_rests(
    sigma: float, path: Path, step: int | None = None, *, zero_init: float, zero_steps: int = 0
) -> bool:
    """Whether `zero_star` leaves the model out at `sigma`, or in this step of the run where its number is known.

    A table of float32 noise levels may begin at 1 less a rounding: within 1e-6 of 1 is 1.
    """
    level = 1.0 if abs(sigma - 1.0) < 1e-6 else sigma
    return path is Path.FLOW and (level >= zero_init or (step is not None and step < zero_steps))


def perp_neg(
    call: Call,
    cond: Tensor,
    uncond: Tensor | None,
    *,
    empty: Tensor,
    negative_scale: Annotated[
        float, Param("Strength of the negative prompt against that of the positive one.", 0.0, 100.0, 0.01)
    ] = 1.0,
    form: Annotated[
        Literal["conditional", "published"],
        Param(
            "conditional makes guidance 1 the positive prompt alone; published is the form of the paper and of "
            "ComfyUI, in which the negative prompt acts there too.",
            rare=True,
        ),
    ] = "conditional",
) -> Tensor:
    """Perp-Neg: denoised = cond + (scale - 1) (p - negative_scale n_perp)   (Armandpour et al. 2023).

    p = cond - empty, n = uncond - empty, n_perp = n - <n, p> / <p, p> p: only what in the negative prompt is
    perpendicular to the positive one pushes away. uncond is the guider's negative prompt, empty the empty one. In the
    paper's form, empty + scale (p - negative_scale n_perp), n_perp comes with scale instead of scale - 1. If both
    prompts are equal, it is guidance against the empty prompt. With negative_scale 0 it is that too, and the negative
    prompt is not evaluated.
    """
    if uncond is None:
        return empty
    strength = negative_scale * (1.0 if form == "conditional" else call.scale / (call.scale - 1.0))

    def away(cond: Tensor, negative: Tensor, empty: Tensor) -> Tensor:
        p, n = cond - empty, negative - empty
        return torch.add(empty, torch.addcmul(n, p, share(n, p), value=-1.0), alpha=strength)

    return apart(call.components, away, cond, uncond, empty)


def perp_neg_reads(scale: float, *, negative_scale: float, form: str) -> tuple[str, ...]:
    return ("cond", "empty") if negative_scale == 0.0 else ("cond", "uncond", "empty")


def perp_neg_avoids(*, negative_scale: float, form: str) -> tuple[str, ...]:
    return ("empty",)


def tangential(call: Call, cond: Tensor, uncond: Tensor) -> Tensor:
    """Tangential damping: u' = <u, n> n, with n the first right singular vector of (u, c)   (Kwon et al. 2025).

    u = x - uncond and c = x - cond point along the two scores. u' is what u has in common with the direction that the
    two of them share most: cos^2 t u + sin t cos t c, where tan 2 t = 2 <u, c> / (<u, u> - <c, c>). It is computed from
    these three numbers of an image and not from a decomposition. Without a parameter; between equal scores it does
    nothing.
    """

    def away(x: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        u, c = x - uncond, x - cond
        uc, excess = per_image(dot, u, c), per_image(dot, u, u) - per_image(dot, c, c)
        r = torch.hypot(excess, uc + uc)
        # Of u, sin^2 t is left out, and cos t sin t of c put in its place: both as shares of the image.
        out, put = ((0.5 - 0.5 * excess / r).nan_to_num_(0.0), (uc / r).nan_to_num_(0.0))
        return uncond + torch.addcmul(u * out, c, put, value=-1.0)

    return apart(call.components, away, call.x, cond, uncond)


def magnitude_aware(
    call: Call,
    cond: Tensor,
    uncond: Tensor,
    *,
    alpha: Annotated[
        float, Param("How strongly large differences are damped; 0 is plain guidance.", 0.0, 100.0, 0.1)
    ] = 8.0,
) -> Tensor:
    """MAMBO-G: scale' = 1 + (scale - 1) exp(-alpha r), r = |v_cond - v_uncond| / |v_uncond|   (Zhu et al. 2025).

    v = (x - denoised) / sigma, with lengths over each image. Where guidance is large against the velocity, as at the
    beginning of a run, it is damped. The default is the paper's, at scale 10.
    """
    if alpha == 0.0:
        return uncond

    def away(x: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
        d = cond - uncond
        r = (per_image(length, d) / per_image(length, x - uncond)).nan_to_num_(0.0)
        return torch.addcmul(uncond, d, torch.expm1(-alpha * r), value=-1.0)

    return apart(call.components, away, call.x, cond, uncond)
