"""Exponential multistep solvers of the prediction: DPM++ 2M, 3M and their SDE forms."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import VE, Path
from ..phi import exponential_weights
from ..plan import Noise, Operand, Stage, planned, row
from .ancestral import Eta, SNoise
from .cfg_pp import CfgPP, with_cfg_pp
from .first_level import BELOW_ONE, FirstLevel, begun
from .history import FinalOrder, WarmUp, final_limit, finite_steps, history, known_history, opened, opening_order
from .runge_kutta import runge_kutta_stages
from .sde import sde_step

Time = Annotated[
    Literal["half_log_snr", "log_sigma"],
    Param(
        "Variable of extrapolation. They differ on flow models only, where ComfyUI's own dpmpp_2m has log_sigma.",
        rare=True,
    ),
]


@planned
def dpmpp_2m(
    path: Path,
    sigmas: Sequence[float],
    *,
    time: Time = "half_log_snr",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """DPM-Solver++(2M)   (Lu et al. 2022b, algorithm 2).

    x_t = (t / s) x + alpha_t (1 - e^-h) D,   D = (1 + 1 / 2r) denoised - (1 / 2r) previous denoised,   r = h_last / h.

    Order 2, one model call a step. The first step, and the last one when it goes to 0 (h infinite), are of order 1.
    On FLOW from sigma = 1 the first h is infinite, so the second step extrapolates nothing and is of order 1 too; over
    the whole run the order stays 2.

    `time` = log_sigma measures h as log(s / t) on FLOW too; on VE that is the half log-SNR itself.
    """
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        lam = VE.lam if time == "log_sigma" else path.towards(s, t).lam
        gain, extra = path.gain(s, t), 0.0
        if step > 0 and final_limit(final_order, sigmas, step) > 1:
            extra = gain * (lam(t) - lam(s)) / (2.0 * (lam(s) - lam(sigmas[step - 1])))
        terms = {"denoised": gain + extra, "previous1": -extra, "x": t / s}
        stages.append(Stage(s, (row("x", terms), *history(1)), step))
    return with_cfg_pp(path, stages, cfg_pp)


@planned
def dpmpp_2m_sde(
    path: Path,
    sigmas: Sequence[float],
    *,
    solver_type: Annotated[
        Literal["midpoint", "heun"], Param("How the previous prediction enters: midpoint is the more robust one.")
    ] = "midpoint",
    eta: Eta = 1.0,
    s_noise: SNoise = 1.0,
    final_order: FinalOrder = "first",
    cfg_pp: CfgPP = False,
    time: Time = "half_log_snr",
    first_level: FirstLevel = "as_given",
    below: float = BELOW_ONE,
) -> list[Stage]:
    """DPM-Solver++(2M) SDE   (Lu et al. 2022b, section 5; k-diffusion, sample_dpmpp_2m_sde).

    The step of `sde_step` with D = denoised + c (denoised - previous denoised), c h_last / h = 1/2 for `midpoint`, and
    for `heun` the exact integral of the line through both, 1 - (1 - e^-z) / z over 1 - e^-z with z = (1 + eta) h.

    One model call a step; on the ODE (eta = 0) order 2. `final_order` = first, the default, makes the last step before
    0 one of order 1: there the extrapolation over a long step in log-SNR is what goes wrong with few steps. `time` =
    log_sigma measures the h of the extrapolation as log(s / t) on FLOW too, where the noise stays that of `sde_step`.
    """
    sigmas = begun(path, sigmas, first_level, below)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        carry, gain, up = sde_step(path, s, t, eta)
        extra = 0.0
        if step > 0 and final_limit(final_order, sigmas, step) > 1:
            scale = VE if time == "log_sigma" else path.towards(s, t)
            h, last = scale.lam(t) - scale.lam(s), scale.lam(s) - scale.lam(sigmas[step - 1])
            if math.isfinite(last):
                z = (1.0 + eta) * h
                whole = scale.alpha(t) if time == "half_log_snr" else -gain / math.expm1(-z)
                slope = gain / 2.0 if solver_type == "midpoint" else whole * (1.0 + math.expm1(-z) / z)
                extra = slope * h / last
        terms = {"denoised": gain + extra, "previous1": -extra, "x": carry, Noise("step", s, t): s_noise * up}
        stages.append(Stage(s, (row("x", terms), *history(1)), step))
    return with_cfg_pp(path, stages, cfg_pp)


Weights = Annotated[
    Literal["exact", "published"],
    Param(
        "exact integrates the parabola through three predictions; published is the form of the other libraries.",
        rare=True,
    ),
]


def adams_terms(
    path: Path, sigmas: Sequence[float], step: int, order: int, eta: float, curvature: float, end: float | None = None
) -> dict[Operand, float]:
    """The predictions in the exponential Adams step: their polynomial through `order` points, integrated exactly.

    The step goes to the next level, or to an `end` of its own. Points at infinite log-SNR are left out.
    """
    s, t = sigmas[step], sigmas[step + 1] if end is None else end
    path = path.towards(s, t)
    lams = [path.lam(sigmas[step - i]) for i in range(min(order, step + 1))]
    nodes = [lam for lam in lams if math.isfinite(lam)]
    if len(nodes) < 2:
        return {"denoised": sde_step(path, s, t, eta)[1]}
    names: list[Operand] = ["denoised", *(f"previous{i}" for i in range(1, len(nodes)))]
    weights = exponential_weights(nodes, nodes[0], path.lam(t), 1.0 + eta, curvature)
    return {name: path.alpha(t) * weight for name, weight in zip(names, weights, strict=True)}


@planned
def dpmpp_3m(
    path: Path,
    sigmas: Sequence[float],
    *,
    weights: Weights = "exact",
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """DPM-Solver++(3M): exponential Adams of order 3 in the prediction   (Lu et al. 2022b, eq. 9 and section 4.2).

    x_t = (t / s) x + alpha_t sum_j w_j denoised_j, w_j the integral of e^(lam - lam_t) times the Lagrange polynomial
    through the last three predictions; see `exponential_weights`.

    Order 3, one model call a step. `warm_up` = singlestep makes the first step by the midpoint rule, one call more,
    which keeps the order; multistep begins with order 1, and the whole run is then of order 2. `weights` = published
    counts the second difference half as much as the integral does, as the authors' code, diffusers and k-diffusion do;
    that is of order 2 from any start.
    """
    curvature = 1.0 if weights == "exact" else 0.5
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        single = opening_order(warm_up, 3, finite_steps(path, sigmas, step)) if t > 0.0 else 0
        if single:
            stages += opened(runge_kutta_stages(single, path, s, t, step), known_history(step, 2))
            continue
        used = min(3, final_limit(final_order, sigmas, step))
        terms = adams_terms(path, sigmas, step, used, 0.0, curvature)
        stages.append(Stage(s, (row("x", {**terms, "x": t / s}), *known_history(step, 2)), step))
    return with_cfg_pp(path, stages, cfg_pp)


@planned
def dpmpp_3m_sde(
    path: Path,
    sigmas: Sequence[float],
    *,
    weights: Weights = "exact",
    eta: Eta = 1.0,
    s_noise: SNoise = 1.0,
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
    first_level: FirstLevel = "as_given",
    below: float = BELOW_ONE,
) -> list[Stage]:
    """DPM-Solver++(3M) SDE   (k-diffusion, sample_dpmpp_3m_sde).

    The step of `sde_step` with the parabola through three predictions integrated against the kernel of the SDE. One
    model call a step. `weights` as in DPM++ 3M.
    """
    curvature = 1.0 if weights == "exact" else 0.5
    sigmas = begun(path, sigmas, first_level, below)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        carry, _, up = sde_step(path, s, t, eta)
        used = min(3, final_limit(final_order, sigmas, step))
        terms = adams_terms(path, sigmas, step, used, eta, curvature)
        x = row("x", {**terms, "x": carry, Noise("step", s, t): s_noise * up})
        stages.append(Stage(s, (x, *known_history(step, 2)), step))
    return with_cfg_pp(path, stages, cfg_pp)
