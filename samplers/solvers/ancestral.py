"""Solvers that renew part of the noise at each step: DDPM, DDIM, LCM."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import InputError, Param
from ..path import Path
from ..plan import Noise, Plan, Row, Stage, row


def renewing_row(path: Path, s: float, t: float, fresh: float) -> Row:
    """The step from s to t that keeps x's marginals and makes `fresh` of the noise at t anew.

    x_t = alpha_t denoised + sqrt(t^2 - fresh^2) (x - alpha_s denoised) / s + fresh noise   (Song et al. 2021, eq. 12)
    """
    kept = math.sqrt(max(t * t - fresh * fresh, 0.0)) / s
    if fresh == 0.0:
        return row("x", {"denoised": path.gain(s, t), "x": t / s})
    return row("x", {"denoised": path.alpha(t) - path.alpha(s) * kept, "x": kept, Noise("step", s, t): fresh})


def one_call_plan(path: Path, sigmas: Sequence[float], rows: Sequence[Row]) -> Plan:
    """A plan of one model call and one row per step."""
    stages = tuple(Stage(s, (r,), step) for step, (s, r) in enumerate(zip(sigmas, rows, strict=False)))
    return Plan(path, tuple(sigmas), stages)


def ddim(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Annotated[
        float,
        Param("Share of the noise that is made anew at each step: 0 is deterministic, 1 is DDPM.", 0.0, 1.0, 0.01),
    ] = 0.0,
) -> Plan:
    """DDIM: fresh = eta t sqrt(1 - (alpha_s t / (alpha_t s))^2)   (Song, Meng and Ermon 2021, eqs. 12 and 16).

    With eta = 0 it is Euler on the probability-flow ODE (their eq. 13), order 1. With eta = 1 it is ancestral DDPM
    sampling with the posterior variance, on any subset of the timesteps. One model call a step. On FLOW the same
    formula holds with alpha = 1 - sigma, from sigma = 1 on too.

    Args:
        path: VE or FLOW.
        sigmas: descending noise levels, the last may be 0.
        eta: 0 to 1.
    """
    rows: list[Row] = []
    for s, t in pairwise(sigmas):
        q = path.posterior(s, t)
        rows.append(renewing_row(path, s, t, eta * t * math.sqrt((1.0 - q) * (1.0 + q))))
    return one_call_plan(path, sigmas, rows)


def ddpm(
    path: Path,
    sigmas: Sequence[float],
    *,
    variance: Annotated[
        Literal["small", "large"],
        Param("Variance of each step: small is the posterior's (beta-tilde), large the forward process's (beta)."),
    ] = "small",
) -> Plan:
    """DDPM ancestral sampling   (Ho, Jain and Abbeel 2020, eqs. 6, 7 and section 3.2).

    The mean is that of the posterior q(x_t | x_s, x0). Its variance is `small`, beta-tilde of eq. 7, which equals
    DDIM with eta = 1; or `large`, beta, in the VE scaling (s^2 - t^2)(1 + t^2) / (1 + s^2), which is right for data of
    unit variance and adds noise otherwise. The last step, to 0, adds none. One model call a step.

    Raises:
        InputError: `large` on FLOW, where the variance-preserving beta has no counterpart.
    """
    if variance == "small":
        return ddim(path, sigmas, eta=1.0)
    if path is not Path.VE:
        raise InputError("variance", "is 'large', which flow models do not have", "choose small")
    rows: list[Row] = []
    for s, t in pairwise(sigmas):
        mean = {"denoised": 1.0 - t * t / (s * s), "x": t * t / (s * s)}
        beta = (s - t) * (s + t) * (1.0 + t * t) / (1.0 + s * s)
        rows.append(row("x", {**mean, Noise("step", s, t): math.sqrt(beta) if t > 0.0 else 0.0}))
    return one_call_plan(path, sigmas, rows)


def lcm(path: Path, sigmas: Sequence[float]) -> Plan:
    """Multistep consistency sampling: x_t = alpha_t denoised + t noise   (Luo et al. 2023, algorithm 3).

    For models distilled to jump to the clean image from any noise level (LCM, Turbo, Lightning-style): every step
    denoises fully and noises again. 4 to 8 steps, guidance near 1. One model call a step.
    """
    rows = [row("x", {"denoised": path.alpha(t), Noise("step", s, t): t}) for s, t in pairwise(sigmas)]
    return one_call_plan(path, sigmas, rows)
