"""Solvers without memory from step to step: Euler, DPM-Solver."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import Path
from ..plan import Noise, Plan, Row, Stage, row


def euler_row(path: Path, s: float, t: float) -> Row:
    """x + (t - s) (x - denoised) / s, which is also DDIM without noise and DPM-Solver of order 1."""
    return row("x", {"denoised": path.gain(s, t), "x": t / s})


def churned(path: Path, s: float, gamma: float, s_noise: float) -> tuple[float, tuple[Row, ...]]:
    """The raised noise level s_hat, sigma / alpha times 1 + gamma, and the row that brings x there by adding noise.

    x_hat = alpha_hat / alpha x + s_noise sqrt(s_hat^2 - (alpha_hat / alpha s)^2) noise, which on VE is Karras et al.
    2022, algorithm 2, lines 5 and 6. On FLOW the level stays below 1; at 1 there is nothing to add.
    """
    if gamma == 0.0 or path.alpha(s) == 0.0:
        return s, ()
    raised = path.sigma(path.lam(s) - math.log1p(gamma))
    scale = path.alpha(raised) / path.alpha(s)
    added = math.sqrt((raised - scale * s) * (raised + scale * s))
    return raised, (row("x", {"x": scale, Noise("churn", s, raised): s_noise * added}),)


def euler(
    path: Path,
    sigmas: Sequence[float],
    *,
    s_churn: Annotated[
        float, Param("Noise added before the steps, spread over the run; 0 adds none.", 0.0, 100.0, 0.1)
    ] = 0.0,
    s_tmin: Annotated[float, Param("Lowest noise level at which noise is added.", 0.0, 1000.0, 0.01)] = 0.0,
    s_tmax: Annotated[float, Param("Highest noise level at which noise is added.", 0.0, 1000.0, 0.01)] = 1000.0,
    s_noise: Annotated[
        float, Param("Strength of the added noise; 1 keeps the noise level true.", 0.0, 2.0, 0.001)
    ] = 1.0,
) -> Plan:
    """Euler's method on dx/dsigma = (x - denoised) / sigma   (Karras et al. 2022, algorithm 2 without line 9).

    Order 1, one model call a step. With `s_churn` each step between `s_tmin` and `s_tmax` first raises the noise level
    by the factor 1 + min(s_churn / steps, sqrt(2) - 1), in terms of sigma / alpha, and steps from there. An `s_noise`
    other than 1 departs from the true noise level on purpose.
    """
    gamma = min(s_churn / max(len(sigmas) - 1, 1), math.sqrt(2.0) - 1.0)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        raised, opening = churned(path, s, gamma if s_tmin <= s <= s_tmax else 0.0, s_noise)
        stages.append(Stage(raised, (euler_row(path, raised, t),), step, opening))
    return Plan(path, tuple(sigmas), tuple(stages))


def midpoint_stages(path: Path, s: float, t: float, step: int) -> tuple[Stage, ...]:
    """DPM-Solver-2 from s to t > 0 through the midpoint m in half log-SNR   (Lu et al. 2022, algorithm 1).

    u = alpha_m / alpha_s x - m (e^(h/2) - 1) eps(x, s),   x_t = alpha_t / alpha_s x - t (e^h - 1) eps(u, m).
    The first is the order-1 step to m. In the second eps(u, m) = (u - alpha_m denoised) / m. From alpha_s = 0, where
    these have no limit, m is the midpoint in sigma and x_t = x + (t - s) (u - denoised) / m; on VE both are the same.
    """
    m = path.between(s, t, 0.5)
    if path.alpha(s) == 0.0:
        slope = (s - t) / m
        second = row("x", {"start": 1.0, "denoised": slope, "x": -slope})
    else:
        carry = path.alpha(t) / path.alpha(s)
        slope = (carry * s - t) / m
        second = row("x", {"start": carry, "denoised": slope * path.alpha(m), "x": -slope})
    return (
        Stage(s, (row("start", {"x": 1.0}), euler_row(path, s, m)), step),
        Stage(m, (second,), step),
    )


def dpm_solver(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[
        Literal["1", "2"], Param("Order of accuracy, which is also the number of model calls a step.")
    ] = "2",
) -> Plan:
    """DPM-Solver, singlestep: exponential integrators of the noise prediction   (Lu et al. 2022a, algorithm 1).

    Order 1 is DDIM without noise. Order 2 takes two model calls a step, the second at the midpoint of the step in half
    log-SNR (r1 = 1/2), and on VE is k-diffusion's dpm_2. The step to 0, where h is infinite, is of order 1 with one
    call. From sigma = 1 on FLOW the inner point lies halfway in sigma, see `midpoint_stages`.
    """
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        if order == "1" or t == 0.0:
            stages.append(Stage(s, (euler_row(path, s, t),), step))
        else:
            stages += midpoint_stages(path, s, t, step)
    return Plan(path, tuple(sigmas), tuple(stages))
