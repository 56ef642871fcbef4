"""DPM-Solver-12 and DPM-Solver-23: steps of an order and one lower from the same model calls."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import VE, Path
from ..plan import Noise, Row, Stage, planned, row
from .ancestral import Eta, SNoise, ancestral_split
from .runge_kutta import KEEP_START, Point, euler_row
from .single_step import noise_step, second_order_stages, third_order_stages

LOW = "low"


def pair_stages(order: int, s: float, t: float, step: int) -> list[Stage]:
    """DPM-Solver from s to t, both above 0, of `order` 2 or 3 in `x` and one lower in `low`   (Lu et al. 2022a,
    appendix C), in log sigma.

    Of order 2 `low` is the step of order 1. Of order 3 it is that of order 2 with r1 = 1/3,
    x_t = x - t (e^h - 1) (eps_s + 3/2 (eps_a - eps_s)), whose inner point a is the first of order 3 too.
    """
    if order == 2:
        opens, last = second_order_stages(VE, s, t, step)
        low = euler_row(VE, s, t)._replace(target=LOW)
        start, *to_inner = opens.rows
        return [opens._replace(rows=(start, low, *to_inner)), last]
    opens, middle, last = third_order_stages(VE, s, t, step)
    whole = math.expm1(VE.lam(t) - VE.lam(s))
    first: Point = ("start", "first", s)
    low = noise_step(VE, s, t, [(first, -0.5 * whole), (("x", "denoised", middle.sigma), 1.5 * whole)])
    return [opens, middle._replace(rows=(low._replace(target=LOW), *middle.rows)), last]


def landing(path: Path, s: float, t: float, eta: float, floor: float = 0.0) -> tuple[float, float, float]:
    """`ancestral_split`, but that it goes down no further than `floor`, which is at most t."""
    down, rescale, up = ancestral_split(path, s, t, eta)
    if down >= floor or t > s:
        return down, rescale, up
    rescale = path.carry(floor, t)
    return floor, rescale, math.sqrt(max((t - rescale * floor) * (t + rescale * floor), 0.0))


def renoised(r: Row, s: float, t: float, rescale: float, up: float, s_noise: float) -> Row:
    """`r` multiplied by `rescale`, and `up` noise on it."""
    return row(r.target, {**{each: rescale * value for each, value in r.terms}, Noise("step", s, t): s_noise * up})


Levels = Annotated[
    Literal["as_given", "core"],
    Param(
        "What cuts a step short: as_given every level of the schedule; core its last level above 0 alone, as in "
        "ComfyUI's dpm_adaptive."
    ),
]


@planned
def dpm_adaptive(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[
        Literal["2", "3"], Param("Order of accuracy, which is also the number of model calls of every attempt.")
    ] = "3",
    rtol: Annotated[
        float, Param("Error that a step may make, as a share of the latent's values.", 0.0, 100.0, 0.01)
    ] = 0.05,
    atol: Annotated[
        float, Param("Error that a step may make where the latent's values are small.", 0.0, 100.0, 0.0001)
    ] = 0.0078,
    h_init: Annotated[
        float, Param("Length of the first attempt, in log sigma.", 0.0001, 100.0, 0.01, rare=True)
    ] = 0.05,
    pcoeff: Annotated[
        float, Param("Proportional part of the control of the step's length.", 0.0, 100.0, 0.01, rare=True)
    ] = 0.0,
    icoeff: Annotated[
        float, Param("Integral part of the control of the step's length.", 0.0, 100.0, 0.01, rare=True)
    ] = 1.0,
    dcoeff: Annotated[
        float, Param("Derivative part of the control of the step's length.", 0.0, 100.0, 0.01, rare=True)
    ] = 0.0,
    accept_safety: Annotated[
        float,
        Param(
            "A step is accepted where the next one would be at least this many times as long.",
            0.0,
            0.99,
            0.01,
            rare=True,
        ),
    ] = 0.81,
    eta: Eta = 0.0,
    s_noise: SNoise = 1.0,
    levels: Levels = "as_given",
) -> list[Stage]:
    """DPM-Solver-12 or DPM-Solver-23, whose steps are as long as the tolerance allows   (Lu et al. 2022a, appendix C;
    k-diffusion, sample_dpm_adaptive).

    The plan has one step of `pair_stages` for each of the schedule: the run of a tolerance that allows everything. Each
    image makes of a step as many as it needs, by its own errors: see `samplers.adaptive`. The step to 0, whose length
    is infinite, is Euler's; with `levels` = core there is none. On FLOW too the steps are in log sigma. With eta a step
    goes to the level `down` of `ancestral_split` and adds noise back up to t.
    """
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        if t == 0.0 and levels == "core":
            stages.append(Stage(s, (), step))
            continue
        down, rescale, up = landing(path, s, t, eta)
        if down == 0.0:
            found = [Stage(s, (KEEP_START, euler_row(path, s, down)), step)]
        else:
            found = pair_stages(int(order), s, down, step)
        *inner, last = found
        *kept, x = last.rows
        stages += [*inner, last._replace(rows=(*kept, renoised(x, s, t, rescale, up, s_noise)))]
    return stages
