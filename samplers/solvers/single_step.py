"""Solvers without memory from step to step: Euler, Heun, DPM-Solver, DPM++ 2S, DPM++ SDE, Restart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import InputError, Param
from ..path import Path
from ..phi import phi
from ..plan import Noise, Operand, Plan, Row, Stage, row
from .ancestral import Eta, SNoise, ancestral_split
from .cfg_pp import CfgPP, finished

SChurn = Annotated[float, Param("Noise added before the steps, spread over the run; 0 adds none.", 0.0, 100.0, 0.1)]
STmin = Annotated[float, Param("Lowest noise level at which noise is added.", 0.0, 1000.0, 0.01)]
STmax = Annotated[float, Param("Highest noise level at which noise is added.", 0.0, 1000.0, 0.01)]


def euler_row(path: Path, s: float, t: float) -> Row:
    """x + (t - s) (x - denoised) / s, which is also DDIM without noise and DPM-Solver of order 1."""
    return row("x", {"denoised": path.gain(s, t), "x": t / s})


KEEP_START = row("start", {"x": 1.0})


def churned(path: Path, s: float, gamma: float, s_noise: float) -> tuple[float, tuple[Row, ...]]:
    """The raised noise level s_hat, sigma / alpha times 1 + gamma, and the row that brings x there by adding noise.

    x_hat = alpha_hat / alpha x + s_noise sqrt(s_hat^2 - (alpha_hat / alpha s)^2) noise, which on VE is Karras et al.
    2022, algorithm 2, lines 5 and 6. On FLOW the level stays below 1; at 1 there is nothing to add.
    """
    if gamma == 0.0 or path.alpha(s) == 0.0:
        return s, ()
    raised = path.sigma(path.lam(s) - math.log1p(gamma))
    return raised, (noised(path, s, raised, Noise("churn", s, raised, fresh=True), s_noise),)


def noised(path: Path, s: float, t: float, noise: Noise, s_noise: float = 1.0) -> Row:
    """The forward process from s up to t > s: x = alpha_t / alpha_s x + sqrt(t^2 - (alpha_t / alpha_s s)^2) noise."""
    scale = path.carry(s, t)
    return row("x", {"x": scale, noise: s_noise * math.sqrt((t - scale * s) * (t + scale * s))})


def churn_factor(sigmas: Sequence[float], s_churn: float) -> float:
    return min(s_churn / max(len(sigmas) - 1, 1), math.sqrt(2.0) - 1.0)


def euler(
    path: Path,
    sigmas: Sequence[float],
    *,
    s_churn: SChurn = 0.0,
    s_tmin: STmin = 0.0,
    s_tmax: STmax = 1000.0,
    s_noise: SNoise = 1.0,
    cfg_pp: CfgPP = False,
) -> Plan:
    """Euler's method on dx/dsigma = (x - denoised) / sigma   (Karras et al. 2022, algorithm 2 without line 9).

    Order 1, one model call a step. With `s_churn` each step between `s_tmin` and `s_tmax` first raises the noise level
    by the factor 1 + min(s_churn / steps, sqrt(2) - 1), in terms of sigma / alpha, and steps from there. An `s_noise`
    other than 1 departs from the true noise level on purpose.
    """
    gamma = churn_factor(sigmas, s_churn)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        raised, opening = churned(path, s, gamma if s_tmin <= s <= s_tmax else 0.0, s_noise)
        stages.append(Stage(raised, (euler_row(path, raised, t),), step, opening))
    return finished(path, sigmas, stages, cfg_pp)


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


def heun(
    path: Path,
    sigmas: Sequence[float],
    *,
    s_churn: SChurn = 0.0,
    s_tmin: STmin = 0.0,
    s_tmax: STmax = 1000.0,
    s_noise: SNoise = 1.0,
    cfg_pp: CfgPP = False,
) -> Plan:
    """Heun's method on dx/dsigma = (x - denoised) / sigma   (Karras et al. 2022, algorithm 2).

    Order 2, two model calls a step, one in the step to 0. Churn as in Euler.
    """
    gamma = churn_factor(sigmas, s_churn)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        raised, opening = churned(path, s, gamma if s_tmin <= s <= s_tmax else 0.0, s_noise)
        stages += heun_stages(path, raised, t, step, opening)
    return finished(path, sigmas, stages, cfg_pp)


Point = tuple[Operand, Operand, float]


def noise_step(path: Path, s: float, t: float, weights: Sequence[tuple[Point, float]]) -> Row:
    """alpha_t / alpha_s start - t sum w eps, eps = (x - alpha denoised) / sigma at each point (x, denoised, sigma)."""
    terms: dict[Operand, float] = {"start": path.carry(s, t)}
    for (x, denoised, sigma), weight in weights:
        terms[denoised] = terms.get(denoised, 0.0) + t * weight * path.alpha(sigma) / sigma
        terms[x] = terms.get(x, 0.0) - t * weight / sigma
    return row("x", terms)


def slope_step(s: float, t: float, weights: Sequence[tuple[Point, float]]) -> Row:
    """start + (t - s) sum w (x - denoised) / sigma, an explicit Runge-Kutta step in sigma."""
    terms: dict[Operand, float] = {"start": 1.0}
    for (x, denoised, sigma), weight in weights:
        terms[denoised] = terms.get(denoised, 0.0) + (s - t) * weight / sigma
        terms[x] = terms.get(x, 0.0) - (s - t) * weight / sigma
    return row("x", terms)


def runge_kutta_stages(order: int, path: Path, s: float, t: float, step: int) -> list[Stage]:
    """A step from s to t > 0 by an explicit Runge-Kutta method in sigma: the midpoint rule (2), Heun's method (3).

    dx/dsigma is smooth at every noise level, alpha = 0 included, so this is how a run opens where half log-SNR cannot.
    """
    first: Point = ("start", "first", s)
    inner = [s + c * (t - s) for c in ((0.5,) if order == 2 else (1.0 / 3.0, 2.0 / 3.0))]
    keep = (KEEP_START, row("first", {"denoised": 1.0}))
    if order == 2:
        rows = [euler_row(path, s, inner[0]), slope_step(s, t, [(("x", "denoised", inner[0]), 1.0)])]
    else:
        rows = [
            euler_row(path, s, inner[0]),
            slope_step(s, inner[1], [(("x", "denoised", inner[0]), 1.0)]),
            slope_step(s, t, [(first, 0.25), (("x", "denoised", inner[1]), 0.75)]),
        ]
    calls = zip((s, *inner), rows, strict=True)
    return [Stage(sigma, (*keep, r) if i == 0 else (r,), step) for i, (sigma, r) in enumerate(calls)]


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
    keep = (KEEP_START, row("first", {"denoised": 1.0}))
    return [
        Stage(s, (*keep, euler_row(path, s, a)), step),
        Stage(a, (to_b,), step),
        Stage(b, (to_t,), step),
    ]


def order_stages(order: int, path: Path, s: float, t: float, step: int) -> list[Stage]:
    """One step of DPM-Solver of the given order, 1 to 3; of order 1 where it goes to 0, in sigma from alpha_s = 0."""
    if order == 1 or t == 0.0:
        return [Stage(s, (euler_row(path, s, t),), step)]
    if path.alpha(s) == 0.0:
        return runge_kutta_stages(order, path, s, t, step)
    return second_order_stages(path, s, t, step) if order == 2 else third_order_stages(path, s, t, step)


def dpm_solver(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[
        Literal["1", "2", "3"], Param("Order of accuracy, which is also the number of model calls a step.")
    ] = "2",
    cfg_pp: CfgPP = False,
) -> Plan:
    """DPM-Solver, singlestep: exponential integrators of the noise prediction   (Lu et al. 2022a, algorithms 1, 2).

    Order 1 is DDIM without noise. Order 2 takes two model calls a step, the second at the midpoint of the step in half
    log-SNR (r1 = 1/2), and on VE is k-diffusion's dpm_2. Order 3 takes three (r1 = 1/3, r2 = 2/3). The step to 0, where
    h is infinite, is of order 1 with one call. From sigma = 1 on FLOW, where half log-SNR is infinite, that step is
    a Runge-Kutta step of the same order in sigma.
    """
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        stages += order_stages(int(order), path, s, t, step)
    return finished(path, sigmas, stages, cfg_pp)


def dpmpp_2s(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Eta = 0.0,
    s_noise: SNoise = 1.0,
    cfg_pp: CfgPP = False,
) -> Plan:
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
    return finished(path, sigmas, stages, cfg_pp)


@dataclass(frozen=True)
class SDEStep:
    """An ancestral step from s to t in rho = sigma / alpha: carry x + gain prediction + up noise.

    up = eta t sqrt(1 - q^2), down = sqrt(t^2 - up^2), carry = down / s, gain = alpha_t (1 - q down / t), with
    q = sigma_t alpha_s / (sigma_s alpha_t). All are finite from alpha_s = 0 on.
    """

    carry: float
    gain: float
    up: float

    @staticmethod
    def of(path: Path, s: float, t: float, eta: float) -> "SDEStep":
        q = path.posterior(s, t)
        fresh = eta * math.sqrt((1.0 - q) * (1.0 + q))
        down = math.sqrt((1.0 - fresh) * (1.0 + fresh))
        return SDEStep(t / s * down, path.alpha(t) * (1.0 - q * down), t * fresh)


def dpmpp_sde(
    path: Path,
    sigmas: Sequence[float],
    *,
    eta: Eta = 1.0,
    s_noise: SNoise = 1.0,
    r: Annotated[
        float, Param("Where in the step, in half log-SNR, the second model call is made.", 0.1, 0.9, 0.01)
    ] = 0.5,
    cfg_pp: CfgPP = False,
) -> Plan:
    """DPM-Solver++ SDE   (k-diffusion, sample_dpmpp_sde; Lu et al. 2022b, section 5 for the SDE).

    Two ancestral steps of `SDEStep` from x: u to the inner level m with denoised and noise[s, m], and x_t with
    (1 - 1/2r) denoised + 1/2r denoised(u, m) and noise[s, t].

    Two model calls a step, one in the step to 0. noise[s, t] contains noise[s, m]: it is that, shrunk as the step from
    m to t shrinks x, plus noise[m, t], together of the variance that the step needs. Independent draws would lose the
    correlation, and with it more than a quarter of the variance. From sigma = 1 on FLOW the inner point is a fraction
    of the step in sigma.
    """
    mix = 1.0 / (2.0 * r)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        if t == 0.0:
            stages.append(Stage(s, (euler_row(path, s, t),), step))
            continue
        m = path.between(s, t, r)
        to_m, to_t, rest = SDEStep.of(path, s, m, eta), SDEStep.of(path, s, t, eta), SDEStep.of(path, m, t, eta)
        shrunk = to_m.up * rest.carry
        share = s_noise * to_t.up / (math.hypot(shrunk, rest.up) or 1.0)
        inner, outer = Noise("step", s, m), Noise("step", m, t)
        first = row("x", {"denoised": to_m.gain, "x": to_m.carry, inner: s_noise * to_m.up})
        terms = {"denoised": to_t.gain * mix, "first": to_t.gain * (1.0 - mix), "start": to_t.carry}
        last = row("x", {**terms, inner: share * shrunk, outer: share * rest.up})
        stages += [Stage(s, (KEEP_START, row("first", {"denoised": 1.0}), first), step), Stage(m, (last,), step)]
    return finished(path, sigmas, stages, cfg_pp)


def restart(
    path: Path,
    sigmas: Sequence[float],
    *,
    restarts: Annotated[int, Param("How often the interval is run again.", 0, 20, 1)] = 1,
    t_min: Annotated[
        float, Param("Lower end of the interval, moved up to the next level of the schedule.", 0.001, 1000.0, 0.01)
    ] = 0.1,
    t_max: Annotated[float, Param("Upper end of the interval: noise is added up to here.", 0.001, 1000.0, 0.01)] = 2.0,
    restart_steps: Annotated[int, Param("Steps of each repetition, on Karras's schedule with rho 7.", 1, 100, 1)] = 4,
) -> Plan:
    """Restart sampling: Heun, and noise added back from t_min to t_max, K times   (Xu et al. 2023, algorithm 1).

    Two model calls a step, and 2 restarts restart_steps more. When the run has come down to the last level of the
    schedule that is not below t_min, x is noised up to t_max with fresh noise and solved down again. t_min and t_max
    are sigma / alpha: on VE the noise level itself, on FLOW sigma / (1 - sigma).

    Raises:
        InputError: t_max not above t_min.
    """
    if restarts and not t_min < t_max:
        raise InputError("t_max", f"is {t_max:g}", f"give a value above t_min = {t_min:g}")
    low, high = path.sigma(-math.log(t_min)), path.sigma(-math.log(t_max))
    reached = max((i for i, sigma in enumerate(sigmas) if sigma >= low), default=0)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        stages += heun_stages(path, s, t, step)
        if step + 1 == reached and 0.0 < t < high:
            for repetition in range(restarts):
                stages += repeated(path, t, high, restart_steps, step, repetition)
    return Plan(path, tuple(sigmas), tuple(stages))


def repeated(path: Path, low: float, high: float, steps: int, step: int, repetition: int) -> list[Stage]:
    """Noise from `low` up to `high`, and Heun back down on a Karras grid."""
    root = 1.0 / 7.0
    grid = [(high**root + i / steps * (low**root - high**root)) ** 7.0 for i in range(steps)]
    levels = [high, *grid[1:], low]
    opening = (noised(path, low, high, Noise("restart", low, high, repetition, fresh=True)),)
    stages: list[Stage] = []
    for s, t in pairwise(levels):
        stages += heun_stages(path, s, t, step, opening)
        opening = ()
    return stages
