"""Solvers without memory from step to step: Euler, Heun, DPM-Solver, DPM++ 2S."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import VE, Path
from ..phi import phi
from ..plan import Noise, Operand, Row, Stage, planned, row
from .ancestral import Eta, SNoise, ancestral_split
from .cfg_pp import CfgPP, with_cfg_pp
from .runge_kutta import KEEP_FIRST, KEEP_START, Point, euler_row, runge_kutta_stages

SChurn = Annotated[float, Param("Noise added before the steps, spread over the run; 0 adds none.", 0.0, 100.0, 0.1)]
STmin = Annotated[float, Param("Lowest noise level at which noise is added.", 0.0, 20000.0, 0.01, rare=True)]
STmax = Annotated[float, Param("Highest noise level at which noise is added.", 0.0, 20000.0, 0.01, rare=True)]


def churned(
    path: Path, s: float, gamma: float, s_noise: float, highest: float = math.inf
) -> tuple[float, tuple[Row, ...]]:
    """The raised noise level s_hat, sigma / alpha times 1 + gamma but no more than `highest`, and the row that brings x
    there by adding noise.

    x_hat = alpha_hat / alpha x + s_noise sqrt(s_hat^2 - (alpha_hat / alpha s)^2) noise, which on VE is Karras et al.
    2022, algorithm 2, lines 5 and 6; their code too keeps s_hat in the model's range. On FLOW the level stays below 1;
    at 1 there is nothing to add.
    """
    if gamma == 0.0 or path.alpha(s) == 0.0:
        return s, ()
    raised = min(path.sigma(path.lam(s) - math.log1p(gamma)), highest)
    if raised <= s:
        return s, ()
    return raised, (noised(path, s, raised, Noise("churn", s, raised, fresh=True), s_noise),)


def noised(path: Path, s: float, t: float, noise: Noise, s_noise: float = 1.0) -> Row:
    """The forward process from s up to t > s: x = alpha_t / alpha_s x + sqrt(t^2 - (alpha_t / alpha_s s)^2) noise."""
    scale = path.carry(s, t)
    return row("x", {"x": scale, noise: s_noise * math.sqrt((t - scale * s) * (t + scale * s))})


def churn_factor(sigmas: Sequence[float], s_churn: float) -> float:
    return min(s_churn / max(len(sigmas) - 1, 1), math.sqrt(2.0) - 1.0)


@planned
def euler(
    path: Path,
    sigmas: Sequence[float],
    *,
    s_churn: SChurn = 0.0,
    s_tmin: STmin = 0.0,
    s_tmax: STmax = 1000.0,
    s_noise: SNoise = 1.0,
    cfg_pp: CfgPP = False,
    highest: float = math.inf,
) -> list[Stage]:
    """Euler's method on dx/dsigma = (x - denoised) / sigma   (Karras et al. 2022, algorithm 2 without line 9).

    Order 1, one model call a step. With `s_churn` each step between `s_tmin` and `s_tmax` first raises the noise level
    by the factor 1 + min(s_churn / steps, sqrt(2) - 1), in terms of sigma / alpha, but not above `highest`, the model's
    highest level, and steps from there. An `s_noise` other than 1 departs from the true noise level on purpose.
    """
    gamma = churn_factor(sigmas, s_churn)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        raised, opening = churned(path, s, gamma if s_tmin <= s <= s_tmax else 0.0, s_noise, highest)
        stages.append(Stage(raised, (euler_row(path, raised, t),), step, opening))
    return with_cfg_pp(path, stages, cfg_pp)


def heun_stages(path: Path, s: float, t: float, step: int, opening: tuple[Row, ...] = ()) -> list[Stage]:
    """x_2 = the Euler step to t; x_t = x + (t - s) / 2 ((x - denoised) / s + (x_2 - denoised_2) / t).

    The first slope is (x_2 - x) / (t - s), so that x_t = (x + x_2) / 2 + (t - s) / 2t (x_2 - denoised_2). To t = 0 the
    Euler step alone.
    """
    if t == 0.0:
        return [Stage(s, (euler_row(path, s, t),), step, opening)]
    slope = (s - t) / (2.0 * t)
    return [
        Stage(s, (KEEP_START, euler_row(path, s, t)), step, opening),
        Stage(t, (row("x", {"start": 0.5, "denoised": slope, "x": 0.5 - slope}),), step),
    ]


@planned
def heun(
    path: Path,
    sigmas: Sequence[float],
    *,
    s_churn: SChurn = 0.0,
    s_tmin: STmin = 0.0,
    s_tmax: STmax = 1000.0,
    s_noise: SNoise = 1.0,
    cfg_pp: CfgPP = False,
    highest: float = math.inf,
) -> list[Stage]:
    """Heun's method on dx/dsigma = (x - denoised) / sigma   (Karras et al. 2022, algorithm 2).

    Order 2, two model calls a step, one in the step to 0. Churn as in Euler.
    """
    gamma = churn_factor(sigmas, s_churn)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        raised, opening = churned(path, s, gamma if s_tmin <= s <= s_tmax else 0.0, s_noise, highest)
        stages += heun_stages(path, raised, t, step, opening)
    return with_cfg_pp(path, stages, cfg_pp)


def noise_step(path: Path, s: float, t: float, weights: Sequence[tuple[Point, float]]) -> Row:
    """alpha_t / alpha_s start - t sum w eps, eps = (x - alpha denoised) / sigma at each point (x, denoised, sigma)."""
    terms: dict[Operand, float] = {"start": path.carry(s, t)}
    for (x, denoised, sigma), weight in weights:
        terms[denoised] = terms.get(denoised, 0.0) + t * weight * path.alpha(sigma) / sigma
        terms[x] = terms.get(x, 0.0) - t * weight / sigma
    return row("x", terms)


def second_order_stages(path: Path, s: float, t: float, step: int) -> list[Stage]:
    """DPM-Solver-2 from s to t > 0 through the midpoint m in half log-SNR   (Lu et al. 2022a, algorithm 1).

    u = alpha_m / alpha_s x - m (e^(h/2) - 1) eps(x, s),   x_t = alpha_t / alpha_s x - t (e^h - 1) eps(u, m).
    The first is the order-1 step to m.
    """
    m = path.between(s, t, 0.5)
    last = noise_step(path, s, t, [(("x", "denoised", m), math.expm1(path.lam(t) - path.lam(s)))])
    return [Stage(s, (KEEP_START, euler_row(path, s, m)), step), Stage(m, (last,), step)]


def third_order_stages(path: Path, s: float, t: float, step: int) -> list[Stage]:
    """DPM-Solver-3 from s to t > 0, r1 = 1/3 and r2 = 2/3   (Lu et al. 2022a, algorithm 2).

    With a = 1/3 and b = 2/3 of h in half log-SNR:
    u_b = alpha_b / alpha_s x - b (e^(2h/3) - 1) eps_s - 2 b ((e^(2h/3) - 1) / (2h/3) - 1) (eps_a - eps_s),
    x_t = alpha_t / alpha_s x - t (e^h - 1) eps_s - 3/2 t ((e^h - 1) / h - 1) (eps_b - eps_s).
    """
    a, b = path.between(s, t, 1.0 / 3.0), path.between(s, t, 2.0 / 3.0)
    first: Point = ("start", "first", s)
    h = path.lam(t) - path.lam(s)
    h_b = 2.0 * h / 3.0
    turn_b, turn_t = 2.0 * h_b * phi(2, h_b), 1.5 * h * phi(2, h)
    to_b = noise_step(path, s, b, [(first, math.expm1(h_b) - turn_b), (("x", "denoised", a), turn_b)])
    to_t = noise_step(path, s, t, [(first, math.expm1(h) - turn_t), (("x", "denoised", b), turn_t)])
    keep = (KEEP_START, KEEP_FIRST)
    return [
        Stage(s, (*keep, euler_row(path, s, a)), step),
        Stage(a, (to_b,), step),
        Stage(b, (to_t,), step),
    ]


def order_stages(order: int, path: Path, s: float, t: float, step: int) -> list[Stage]:
    """One step of DPM-Solver of the given order, 1 to 3; of order 1 to 0, in sigma from or to alpha = 0."""
    if order == 1 or t == 0.0:
        return [Stage(s, (euler_row(path, s, t),), step)]
    if path.is_noise(s) or path.is_noise(t):
        return runge_kutta_stages(order, path, s, t, step)
    return second_order_stages(path, s, t, step) if order == 2 else third_order_stages(path, s, t, step)


StepTime = Annotated[
    Literal["half_log_snr", "log_sigma"],
    Param(
        "Variable of the step and its inner points. They differ on flow models only, where ComfyUI's own dpm_2 has "
        "log_sigma.",
        rare=True,
    ),
]


@planned
def dpm_solver(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[
        Literal["1", "2", "3"], Param("Order of accuracy, which is also the number of model calls a step.")
    ] = "2",
    cfg_pp: CfgPP = False,
    time: StepTime = "half_log_snr",
) -> list[Stage]:
    """DPM-Solver, singlestep: exponential integrators of the noise prediction   (Lu et al. 2022a, algorithms 1, 2).

    Order 1 is DDIM without noise. Order 2 takes two model calls a step, the second at the midpoint of the step in half
    log-SNR (r1 = 1/2), and on VE is k-diffusion's dpm_2. Order 3 takes three (r1 = 1/3, r2 = 2/3). The step to 0, where
    h is infinite, is of order 1 with one call. From sigma = 1 on FLOW, where half log-SNR is infinite, that step is
    a Runge-Kutta step of the same order in sigma. `time` = log_sigma takes log(1 / sigma) for half log-SNR on FLOW too.
    """
    clock = VE if time == "log_sigma" else path
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        stages += order_stages(int(order), clock, s, t, step)
    return with_cfg_pp(path, stages, cfg_pp)


@planned
def dpm_2_ancestral(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Eta = 1.0,
    s_noise: SNoise = 1.0,
    time: StepTime = "half_log_snr",
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """DPM-Solver-2 to a lower level, then noise back up to t   (k-diffusion, sample_dpm_2_ancestral).

    The step of `second_order_stages` from s to the level `down` of `ancestral_split`, whose result is multiplied by
    `rescale` and given `up` noise.

    Two model calls a step, one in the step to 0. With eta = 0 it is DPM-Solver of order 2. `time` as there: log_sigma
    is what ComfyUI's dpm_2_ancestral does on flow models.
    """
    clock = VE if time == "log_sigma" else path
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        down, rescale, up = ancestral_split(path, s, t, eta)
        *inner, last = order_stages(2, clock, s, down, step)
        *kept, x = last.rows
        terms = {operand: rescale * value for operand, value in x.terms}
        renoised = row("x", {**terms, Noise("step", s, t): s_noise * up})
        stages += [*inner, last._replace(rows=(*kept, renoised))]
    return with_cfg_pp(path, stages, cfg_pp)


@planned
def dpmpp_2s(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Eta = 0.0,
    s_noise: SNoise = 1.0,
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """DPM-Solver++(2S), r = 1/2   (Lu et al. 2022b, algorithm 1), with ancestral noise (k-diffusion).

    u = the order-1 step to the midpoint m in half log-SNR;  x_t = t / s x + alpha_t (1 - e^-h) denoised(u, m).

    Order 2 with eta = 0, two model calls a step, one in the step to 0. With eta each step goes to the level `down` of
    `ancestral_split` and adds noise back up to t. From sigma = 1 on FLOW m is the midpoint in sigma; ComfyUI takes
    0.9999 there.
    """
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        down, rescale, up = ancestral_split(path, s, t, eta)
        noise = {Noise("step", s, t): s_noise * up}
        if down == 0.0:
            last = row("x", {"denoised": rescale * path.gain(s, down), "x": rescale * down / s, **noise})
            stages.append(Stage(s, (last,), step))
            continue
        m = path.between(s, down, 0.5)
        last = row("x", {"denoised": rescale * path.gain(s, down), "start": rescale * down / s, **noise})
        stages += [Stage(s, (KEEP_START, euler_row(path, s, m)), step), Stage(m, (last,), step)]
    return with_cfg_pp(path, stages, cfg_pp)
