"""Linear multistep solvers of the slope: LMS, DEIS, iPNDM, PLMS and gradient estimation."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from ..parameters import Param
from ..path import Path
from ..phi import adams_weights, timed_weights
from ..plan import Row, Stage, planned, row
from .cfg_pp import CfgPP, jumped_past
from .history import FinalOrder, WarmUp, final_limit, opening_order
from .runge_kutta import euler_row, runge_kutta_stages
from .single_step import heun_stages

SLOPE = "slope"


@cache
def slope_history(length: int) -> tuple[Row, ...]:
    """Shifts the slopes by one and puts x - denoised, which is sigma times the newest, at the front; for the first of
    the rows after a call, while x is still the state that the model saw."""
    names = [f"{SLOPE}{i}" for i in range(length)]
    shifts = [row(names[i], {names[i - 1]: 1.0}, weight=0.0) for i in range(len(names) - 1, 0, -1)]
    return (*shifts, row(names[0], {"x": 1.0, "denoised": -1.0}, weight=0.0))


def linear_multistep(
    path: Path,
    sigmas: Sequence[float],
    order: int,
    warm_up: str,
    final_order: str,
    weights_at: Callable[[int, int], Sequence[float]],
    cfg_pp: bool,
) -> list[Stage]:
    """x_t = x + sum_j C_j (x_j - denoised_j) / sigma_j, C_j the integral of a Lagrange polynomial."""
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        keep = slope_history(min(step + 1, order))
        if cfg_pp:
            known = [f"{SLOPE}{i}" for i in range(min(step, order))]
            keep = (*jumped_past(path, sigmas, step, known), *keep)
        single = opening_order(warm_up, order, step) if t > 0.0 else 0
        if single:
            first, *others = runge_kutta_stages(single, path, s, t, step)
            stages += [Stage(s, (*keep, *first.rows), step), *others]
            continue
        used = min(order, step + 1, final_limit(final_order, sigmas, step))
        last = euler_row(path, s, t)
        if used > 1:
            slopes = {f"{SLOPE}{i}": w / sigmas[step - i] for i, w in enumerate(weights_at(step, used))}
            last = row("x", {"x": 1.0, **slopes})
        stages.append(Stage(s, (*keep, last), step))
    return stages


@planned
def lms(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Order of accuracy: how many slopes are combined.", 1, 4, 1)] = 4,
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """Linear multistep in sigma: Adams-Bashforth on dx/dsigma = (x - denoised) / sigma   (k-diffusion, sample_lms).

    The weights are the integrals of the Lagrange polynomials in sigma, exactly. Order 1 to 4, one model call a step.
    `warm_up` = singlestep makes the first order - 2 steps by a Runge-Kutta method of order - 1, which keeps the order.
    """

    def weights(step: int, used: int) -> Sequence[float]:
        return adams_weights([sigmas[step - i] for i in range(used)], sigmas[step + 1])

    return linear_multistep(path, sigmas, order, warm_up, final_order, weights, cfg_pp)


@dataclass(frozen=True)
class NoiseRate:
    """The VP process with beta(t) = `least` + `slope` t, of noise level sigma^2 = exp(slope t^2 / 2 + least t) - 1
    (Song et al. 2021, app. C).
    """

    least: float
    slope: float

    @staticmethod
    def through(low: tuple[float, float], high: tuple[float, float]) -> "NoiseRate":
        """The one that has two noise levels, each (time, sigma), the second at time 1: log(1 + sigma^2) is the integral
        of the rate up to the time."""
        (t, sigma), (_, largest) = low, high
        slope = 2.0 * (math.log1p(sigma**2) / t - math.log1p(largest**2)) / (t - 1.0)
        return NoiseRate(math.log1p(largest**2) - 0.5 * slope, slope)

    def time(self, sigma: NDArray[np.float64]) -> NDArray[np.float64]:
        """When the process has this noise level."""
        return (np.sqrt(self.least**2 + 2.0 * self.slope * np.log1p(sigma * sigma)) - self.least) / self.slope


NOISE_RATES = {
    "published": NoiseRate(0.1, 19.9),
    # ComfyUI's, from -0.005 to 17.5.
    "core": NoiseRate.through((0.001, 0.002), (1.0, 80.0)),
}


@planned
def deis(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Order of accuracy: how many slopes are combined.", 1, 3, 1)] = 3,
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
    noise_rate: Annotated[
        Literal["published", "core"],
        Param(
            "Of the process in whose time the slopes are interpolated: published runs from 0.1 to 20; core from "
            "-0.005 to 17.5, as in ComfyUI.",
            rare=True,
        ),
    ] = "published",
) -> list[Stage]:
    """DEIS tAB: exponential Adams-Bashforth, polynomial in the VP time   (Zhang and Chen 2023, eq. 14).

    In the VE scaling the exponential integrator is plain integration over sigma, and only the polynomial knows of the
    time t, sigma^2 = exp(beta_d t^2 / 2 + beta_min t) - 1; here beta runs from 0.1 to 20, and with `noise_rate` = core
    as the process does that has sigma 0.002 at time 0.001 and 80 at time 1. On FLOW the slope and sigma are the flow's
    own. Order 1 to 3, one model call a step. `warm_up` as in LMS.
    """
    weights = timed_weights(sigmas, NOISE_RATES[noise_rate].time, order)
    return linear_multistep(path, sigmas, order, warm_up, final_order, weights, cfg_pp)


# Of Adams and Bashforth's methods of order 1 to 4 on even steps: the weights of the slopes, the newest first.
EVEN_WEIGHTS = (
    (1.0,),
    (3.0 / 2.0, -1.0 / 2.0),
    (23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0),
    (55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0),
)


def constant_multistep(
    path: Path,
    sigmas: Sequence[float],
    tables: Sequence[Sequence[float]],
    cfg_pp: bool,
    first_by_heun: bool = False,
) -> list[Stage]:
    """x_t = x + (t - s) sum_j w_j (x_j - denoised_j) / sigma_j, w the table for as many slopes as are known.

    The step to 0 is a plain one. `first_by_heun` makes the first step by Heun's method, whose second slope is not kept.
    """
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        keep = slope_history(min(step + 1, len(tables)))
        if cfg_pp:
            known = [f"{SLOPE}{i}" for i in range(min(step, len(tables)))]
            keep = (*jumped_past(path, sigmas, step, known), *keep)
        if first_by_heun and step == 0 and t > 0.0:
            first, second = heun_stages(path, s, t, step)
            stages += [Stage(s, (*keep, *first.rows), step), second]
            continue
        weights = tables[min(step, len(tables) - 1)]
        last = euler_row(path, s, t)
        if t > 0.0 and any(weights[1:]):
            slopes = {f"{SLOPE}{i}": (t - s) * w / sigmas[step - i] for i, w in enumerate(weights)}
            last = row("x", {"x": 1.0, **slopes})
        stages.append(Stage(s, (*keep, last), step))
    return stages


@planned
def ipndm(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("How many slopes are combined.", 1, 4, 1)] = 4,
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """iPNDM: Adams-Bashforth with the weights of even steps, on any steps   (Zhang and Chen 2023).

    x_t = x + (t - s) sum_j w_j (x_j - denoised_j) / sigma_j, with w of order 4 (55, -59, 37, -9) / 24, and of the order
    that there are slopes for in the first steps. One model call a step. On steps that differ in length every order
    above 1 is of order 2; LMS has the weights for the steps as they are.
    """
    return constant_multistep(path, sigmas, EVEN_WEIGHTS[:order], cfg_pp)


@planned
def plms(path: Path, sigmas: Sequence[float], *, cfg_pp: CfgPP = False) -> list[Stage]:
    """PLMS: pseudo linear multistep   (Liu, Ren, Lin and Zhao 2022, eqs. 11 to 13).

    Adams-Bashforth of order 4 with the weights of even steps, (55, -59, 37, -9) / 24, on steps as they are. The first
    step is Heun's, the pseudo improved Euler step of the paper's appendix, with two model calls; the second and third
    are of order 2 and 3. One model call a step after the first. The transfer of the paper, on the slope, is x +
    (t - s) slope here. On steps that differ in length it is of order 2.
    """
    return constant_multistep(path, sigmas, EVEN_WEIGHTS, cfg_pp, first_by_heun=True)


@planned
def gradient_estimation(
    path: Path,
    sigmas: Sequence[float],
    *,
    gamma: Annotated[
        float, Param("How far the slope is carried on from its last change: 1 is Euler, 2 the paper's.", 1.0, 5.0, 0.01)
    ] = 2.0,
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """Gradient estimation   (Permenter and Yuan 2024).

    x_t = x + (t - s) (gamma eps + (1 - gamma) eps_previous), eps = (x - denoised) / s. One model call a step. Order 1;
    with gamma 1.5, where the weights are those of Adams and Bashforth on even steps, order 2.
    """
    return constant_multistep(path, sigmas, ((1.0,), (gamma, 1.0 - gamma)), cfg_pp)
