"""Solvers of one model call a step that renew part of the noise: DDPM, DDIM, EulerAncestral, LCM."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import InputError, Param
from ..path import Path
from ..plan import Noise, Row, Stage, planned, row
from .cfg_pp import CfgPP, with_cfg_pp

Eta = Annotated[
    float,
    Param("Share of the noise that is made anew at each step: 0 is deterministic, 1 is ancestral.", 0.0, 1.0, 0.01),
]
SNoise = Annotated[
    float, Param("Strength of the added noise; 1 keeps the noise level true.", 0.0, 2.0, 0.001, rare=True)
]


def renewing_row(path: Path, s: float, t: float, fresh: float) -> Row:
    """The step from s to t that keeps x's marginals and makes `fresh` of the noise at t anew.

    x_t = alpha_t denoised + sqrt(t^2 - fresh^2) (x - alpha_s denoised) / s + fresh noise   (Song et al. 2021, eq. 12)
    """
    kept = math.sqrt(max(t * t - fresh * fresh, 0.0)) / s
    if fresh == 0.0:
        return row("x", {"denoised": path.gain(s, t), "x": t / s})
    return row("x", {"denoised": path.alpha(t) - path.alpha(s) * kept, "x": kept, Noise("step", s, t): fresh})


def one_call_stages(sigmas: Sequence[float], rows: Sequence[Row]) -> list[Stage]:
    """One model call and one row per step."""
    return [Stage(s, (r,), step) for step, (s, r) in enumerate(zip(sigmas, rows, strict=False))]


def renewing_stages(path: Path, sigmas: Sequence[float], eta: float) -> list[Stage]:
    """DDIM's steps."""
    rows: list[Row] = []
    for s, t in pairwise(sigmas):
        # Upwards nothing is made anew.
        q = path.posterior(s, t) if t < s else 1.0
        rows.append(renewing_row(path, s, t, eta * t * math.sqrt((1.0 - q) * (1.0 + q))))
    return one_call_stages(sigmas, rows)


@planned
def ddim(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Annotated[
        float,
        Param("Share of the noise that is made anew at each step: 0 is deterministic, 1 is DDPM.", 0.0, 1.0, 0.01),
    ] = 0.0,
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """DDIM: fresh = eta t sqrt(1 - (alpha_s t / (alpha_t s))^2)   (Song, Meng and Ermon 2021, eqs. 12 and 16).

    With eta = 0 it is Euler on the probability-flow ODE (their eq. 13), order 1. With eta = 1 it is ancestral DDPM
    sampling with the posterior variance, on any subset of the timesteps. One model call a step. On FLOW the same
    formula holds with alpha = 1 - sigma, from sigma = 1 on too.

    Args:
        path: VE or FLOW.
        sigmas: descending noise levels, the last may be 0.
        eta: 0 to 1.
    """
    return with_cfg_pp(path, renewing_stages(path, sigmas, eta), cfg_pp)


@planned
def ddpm(
    path: Path,
    sigmas: Sequence[float],
    *,
    variance: Annotated[
        Literal["small", "large"],
        Param("Variance of each step: small is the posterior's (beta-tilde), large the forward process's (beta)."),
    ] = "small",
) -> list[Stage]:
    """DDPM ancestral sampling   (Ho, Jain and Abbeel 2020, eqs. 6, 7 and section 3.2).

    The mean is that of the posterior q(x_t | x_s, x0). Its variance is `small`, beta-tilde of eq. 7, which equals
    DDIM with eta = 1; or `large`, beta, in the VE scaling (s^2 - t^2)(1 + t^2) / (1 + s^2), which is right for data of
    unit variance and adds noise otherwise. The last step, to 0, adds none. One model call a step.

    Raises:
        InputError: `large` on FLOW, where the variance-preserving beta has no counterpart.
    """
    if variance == "small":
        return renewing_stages(path, sigmas, eta=1.0)
    if path is not Path.VE:
        raise InputError("variance", "is 'large', which flow models do not have", "choose small")
    rows: list[Row] = []
    for s, t in pairwise(sigmas):
        mean = {"denoised": 1.0 - t * t / (s * s), "x": t * t / (s * s)}
        beta = (s - t) * (s + t) * (1.0 + t * t) / (1.0 + s * s)
        rows.append(row("x", {**mean, Noise("step", s, t): math.sqrt(beta) if t > 0.0 else 0.0}))
    return one_call_stages(sigmas, rows)


def ancestral_split(path: Path, s: float, t: float, eta: float) -> tuple[float, float, float]:
    """(down, rescale, up): step to `down` without noise, multiply x by `rescale`, add `up` noise, and x is at t.

    On VE up = eta sqrt(t^2 (s^2 - t^2) / s^2), down = sqrt(t^2 - up^2), which keeps DDPM's posterior variance at
    eta = 1 (k-diffusion's ancestral step). On FLOW, as ComfyUI has it, down = t (1 + (t / s - 1) eta), and x is brought
    back to t by rescale = alpha_t / alpha_down, up = sqrt(t^2 - (rescale down)^2).
    Upwards nothing is added.
    """
    if t > s:
        return t, 1.0, 0.0
    if path is Path.VE:
        up = eta * t / s * math.sqrt((s - t) * (s + t))
        return math.sqrt(max(t * t - up * up, 0.0)), 1.0, up
    down = t * (1.0 + (t / s - 1.0) * eta)
    rescale = path.alpha(t) / path.alpha(down)
    return down, rescale, math.sqrt(max((t - rescale * down) * (t + rescale * down), 0.0))


@planned
def euler_ancestral(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Eta = 1.0,
    s_noise: SNoise = 1.0,
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """Euler to a lower level, then noise back up to t; see `ancestral_split`   (k-diffusion, sample_euler_ancestral).

    On VE it is DDIM with the same eta, so that eta = 1 is DDPM. On FLOW it is ComfyUI's euler_ancestral_RF, another
    split of the same marginals. One model call a step. An `s_noise` other than 1 departs from the true noise level.
    """
    rows: list[Row] = []
    for s, t in pairwise(sigmas):
        down, rescale, up = ancestral_split(path, s, t, eta)
        terms = {"denoised": rescale * path.gain(s, down), "x": rescale * down / s}
        rows.append(row("x", {**terms, Noise("step", s, t): s_noise * up}))
    return with_cfg_pp(path, one_call_stages(sigmas, rows), cfg_pp)


@planned
def lcm(
    path: Path,
    sigmas: Sequence[float],
    *,
    s_noise: Annotated[float, Param("Strength of the noise after the first step.", 0.0, 2.0, 0.001, rare=True)] = 1.0,
    s_noise_end: Annotated[
        float,
        Param(
            "Strength of the noise after the last step; between the two it runs linearly.", 0.0, 2.0, 0.001, rare=True
        ),
    ] = 1.0,
    noise_clip_std: Annotated[
        float, Param("Clip the noise at this many standard deviations; 0 does not clip.", 0.0, 10.0, 0.01, rare=True)
    ] = 0.0,
) -> list[Stage]:
    """Multistep consistency sampling: x_t = alpha_t denoised + t noise   (Luo et al. 2023, algorithm 3).

    For models distilled to jump to the clean image from any noise level (LCM, Turbo, Lightning-style): every step
    denoises fully and noises again. 4 to 8 steps, guidance near 1. One model call a step. The strength of step i of n
    is s_noise + (s_noise_end - s_noise) i / (n - 1). Clipping is at the standard deviation that the noise has by
    construction; ComfyUI's measures it over the whole batch.
    """
    steps = len(sigmas) - 1
    clip = noise_clip_std or math.inf
    rows: list[Row] = []
    for i, (s, t) in enumerate(pairwise(sigmas)):
        strength = s_noise + (s_noise_end - s_noise) * (i / (steps - 1) if steps > 1 else 0.0)
        rows.append(row("x", {"denoised": path.alpha(t), Noise("step", s, t, clip=clip, fresh=True): strength * t}))
    return one_call_stages(sigmas, rows)
