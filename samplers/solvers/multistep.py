"""Solvers that remember earlier predictions: DPM++ 2M, 3M and their SDE forms, UniPC, DEIS, LMS."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np

from ..parameters import Param
from ..path import VE, Path
from ..phi import adams_weights, exponential_weights, phi
from ..plan import Noise, Operand, Plan, Row, Stage, row
from .ancestral import Eta, SNoise
from .cfg_pp import CfgPP, finished, moved_past
from .single_step import euler_row, runge_kutta_stages

WarmUp = Annotated[
    Literal["singlestep", "multistep"],
    Param(
        "How the first steps are made, before there is a history. singlestep keeps the order and costs extra model "
        "calls there; multistep begins with order 1 and costs none."
    ),
]
FinalOrder = Annotated[
    Literal["falling", "full", "first"],
    Param(
        "Order of the last steps of a schedule that ends at 0: falling lowers it step by step, "
        "full keeps it up to the step to 0, first makes the last step before 0 one of order 1."
    ),
]


def final_limit(final_order: str, sigmas: Sequence[float], step: int) -> int:
    """The highest order allowed at `step`. The step to 0 itself is always of order 1: there h is infinite."""
    left = len(sigmas) - 1 - step
    if sigmas[-1] > 0.0:
        return 9
    if left == 1:
        return 1
    return {"falling": left, "full": 9, "first": 1 if left == 2 else 9}[final_order]


def opening_order(warm_up: str, order: int, known: int) -> int:
    """The singlestep order that a step needs when `known` earlier predictions can be used, 0 for a multistep step.

    A method of order p keeps it when its first p - 2 steps have order p - 1: their errors are not summed over the run.
    """
    return order - 1 if warm_up == "singlestep" and known < order - 2 else 0


def finite_steps(path: Path, sigmas: Sequence[float], step: int) -> int:
    """How many predictions before `step` lie at a finite log-SNR: one less from alpha = 0."""
    return max(step - 1, 0) if path.alpha(sigmas[0]) == 0.0 else step


def history(length: int, name: str = "previous") -> tuple[Row, ...]:
    """Shifts the history by one: the newest prediction becomes `previous1`. Aliases, which cost nothing."""
    names = [f"{name}{i}" for i in range(1, length + 1)]
    rows = [row(names[i], {names[i - 1]: 1.0}) for i in range(length - 1, 0, -1)]
    return (*rows, row(names[0], {"denoised": 1.0})) if length else ()


def remembered(step: int, length: int) -> tuple[Row, ...]:
    """The history rows after `step` steps before this one: no more than there is to remember."""
    return history(min(step + 1, length))


def opened(stages: list[Stage], rows: tuple[Row, ...]) -> list[Stage]:
    """A singlestep step that also puts its first prediction into the history."""
    first, *others = stages
    return [Stage(first.sigma, (*first.rows, *rows), first.step, first.opening), *others]


def dpmpp_2m(
    path: Path,
    sigmas: Sequence[float],
    *,
    time: Annotated[
        Literal["half_log_snr", "log_sigma"],
        Param(
            "Variable of extrapolation. They differ on flow models only, where ComfyUI's own dpmpp_2m has log_sigma."
        ),
    ] = "half_log_snr",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> Plan:
    """DPM-Solver++(2M)   (Lu et al. 2022b, algorithm 2).

    x_t = (t / s) x + alpha_t (1 - e^-h) D,   D = (1 + 1 / 2r) denoised - (1 / 2r) previous denoised,   r = h_last / h.

    Order 2, one model call a step. The first step, and the last one when it goes to 0 (h infinite), are of order 1.
    On FLOW from sigma = 1 the first h is infinite, so the second step extrapolates nothing and is of order 1 too; over
    the whole run the order stays 2.

    `time` = log_sigma measures h as log(s / t) on FLOW too; on VE that is the half log-SNR itself.
    """
    lam = VE.lam if time == "log_sigma" else path.lam
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        gain, extra = path.gain(s, t), 0.0
        if step > 0 and final_limit(final_order, sigmas, step) > 1:
            extra = gain * (lam(t) - lam(s)) / (2.0 * (lam(s) - lam(sigmas[step - 1])))
        terms = {"denoised": gain + extra, "previous1": -extra, "x": t / s}
        stages.append(Stage(s, (row("x", terms), *history(1)), step))
    return finished(path, sigmas, stages, cfg_pp)


def sde_parts(path: Path, s: float, t: float, eta: float) -> tuple[float, float, float]:
    """(carry, gain, up) of the exponential step of the reverse SDE, with q = e^-h = t alpha_s / (s alpha_t).

    x_t = (t / s) q^eta x + alpha_t (1 - q^(1 + eta)) D + t sqrt(1 - q^(2 eta)) noise   (Lu et al. 2022b, eq. 13, for
    eta = 1; eta = 0 is the ODE). All are finite from alpha_s = 0 on, where q = 0.
    """
    q = path.posterior(s, t)
    if eta == 0.0:
        return t / s, path.gain(s, t), 0.0
    log_q = math.log(q) if q > 0.0 else -math.inf
    gain = -path.alpha(t) * math.expm1((1.0 + eta) * log_q)
    return t / s * q**eta, gain, t * math.sqrt(-math.expm1(2.0 * eta * log_q))


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
) -> Plan:
    """DPM-Solver++(2M) SDE   (Lu et al. 2022b, section 5; k-diffusion, sample_dpmpp_2m_sde).

    The step of `sde_parts` with D = denoised + c (denoised - previous denoised), c h_last / h = 1/2 for `midpoint`, and
    for `heun` the exact integral of the line through both, 1 - (1 - e^-z) / z over 1 - e^-z with z = (1 + eta) h.

    One model call a step; on the ODE (eta = 0) order 2. `final_order` = first, the default, makes the last step before
    0 one of order 1: there the extrapolation over a long step in log-SNR is what goes wrong with few steps.
    """
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        carry, gain, up = sde_parts(path, s, t, eta)
        extra = 0.0
        if step > 0 and final_limit(final_order, sigmas, step) > 1:
            h, last = path.lam(t) - path.lam(s), path.lam(s) - path.lam(sigmas[step - 1])
            if math.isfinite(last):
                z = (1.0 + eta) * h
                slope = gain / 2.0 if solver_type == "midpoint" else path.alpha(t) * (1.0 + math.expm1(-z) / z)
                extra = slope * h / last
        terms = {"denoised": gain + extra, "previous1": -extra, "x": carry, Noise("step", s, t): s_noise * up}
        stages.append(Stage(s, (row("x", terms), *history(1)), step))
    return finished(path, sigmas, stages, cfg_pp)


Weights = Annotated[
    Literal["exact", "published"],
    Param("exact integrates the parabola through three predictions; published is the form of the other libraries."),
]


def adams_terms(
    path: Path, sigmas: Sequence[float], step: int, order: int, eta: float, curvature: float
) -> dict[Operand, float]:
    """The predictions in the exponential Adams step: their polynomial through `order` points, integrated exactly.

    Points at infinite log-SNR are left out.
    """
    s, t = sigmas[step], sigmas[step + 1]
    lams = [path.lam(sigmas[step - i]) for i in range(min(order, step + 1))]
    nodes = [lam for lam in lams if math.isfinite(lam)]
    if len(nodes) < 2:
        return {"denoised": sde_parts(path, s, t, eta)[1]}
    names: list[Operand] = ["denoised", *(f"previous{i}" for i in range(1, len(nodes)))]
    weights = exponential_weights(nodes, nodes[0], path.lam(t), 1.0 + eta, curvature)
    return {name: path.alpha(t) * weight for name, weight in zip(names, weights, strict=True)}


def dpmpp_3m(
    path: Path,
    sigmas: Sequence[float],
    *,
    weights: Weights = "exact",
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> Plan:
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
            stages += opened(runge_kutta_stages(single, path, s, t, step), remembered(step, 2))
            continue
        used = min(3, final_limit(final_order, sigmas, step))
        terms = adams_terms(path, sigmas, step, used, 0.0, curvature)
        stages.append(Stage(s, (row("x", {**terms, "x": t / s}), *remembered(step, 2)), step))
    return finished(path, sigmas, stages, cfg_pp)


def dpmpp_3m_sde(
    path: Path,
    sigmas: Sequence[float],
    *,
    weights: Weights = "exact",
    eta: Eta = 1.0,
    s_noise: SNoise = 1.0,
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> Plan:
    """DPM-Solver++(3M) SDE   (k-diffusion, sample_dpmpp_3m_sde).

    The step of `sde_parts` with the parabola through three predictions integrated against the kernel of the SDE. One
    model call a step. `weights` as in DPM++ 3M.
    """
    curvature = 1.0 if weights == "exact" else 0.5
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        carry, _, up = sde_parts(path, s, t, eta)
        used = min(3, final_limit(final_order, sigmas, step))
        terms = adams_terms(path, sigmas, step, used, eta, curvature)
        x = row("x", {**terms, "x": carry, Noise("step", s, t): s_noise * up})
        stages.append(Stage(s, (x, *remembered(step, 2)), step))
    return finished(path, sigmas, stages, cfg_pp)


SLOPE = "slope"


def slope_history(step: int, order: int, sigma: float) -> tuple[Row, ...]:
    """Shifts the slopes by one and puts x - denoised, which is sigma times the newest, at the front; for the first of
    the rows after a call, while x is still the state that the model saw."""
    names = [f"{SLOPE}{i}" for i in range(min(step + 1, order))]
    shifts = [row(names[i], {names[i - 1]: 1.0}, weight=0.0) for i in range(len(names) - 1, 0, -1)]
    return (*shifts, row(names[0], {"x": 1.0, "denoised": -1.0}, weight=0.0))


def linear_multistep(
    path: Path,
    sigmas: Sequence[float],
    order: int,
    warm_up: str,
    final_order: str,
    time: Callable[[float], float],
    cfg_pp: bool,
) -> Plan:
    """x_t = x + sum_j C_j (x_j - denoised_j) / sigma_j, C_j the integral of the Lagrange polynomial in `time`."""
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        keep = slope_history(step, order, s)
        if cfg_pp:
            known = [f"{SLOPE}{i}" for i in range(min(step, order))]
            keep = (*moved_past(path, sigmas, step, known), *keep)
        single = opening_order(warm_up, order, step) if t > 0.0 else 0
        if single:
            first, *others = runge_kutta_stages(single, path, s, t, step)
            stages += [Stage(s, (*keep, *first.rows), step), *others]
            continue
        used = min(order, step + 1, final_limit(final_order, sigmas, step))
        last = euler_row(path, s, t)
        if used > 1:
            nodes = [sigmas[step - i] for i in range(used)]
            weights = adams_weights(nodes, s, t, time)
            slopes = {f"{SLOPE}{i}": w / node for i, (w, node) in enumerate(zip(weights, nodes, strict=True))}
            last = row("x", {"x": 1.0, **slopes})
        stages.append(Stage(s, (*keep, last), step))
    return Plan(path, tuple(sigmas), tuple(stages))


def lms(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Order of accuracy: how many slopes are combined.", 1, 4, 1)] = 4,
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> Plan:
    """Linear multistep in sigma: Adams-Bashforth on dx/dsigma = (x - denoised) / sigma   (k-diffusion, sample_lms).

    The weights are the integrals of the Lagrange polynomials in sigma, exactly. Order 1 to 4, one model call a step.
    `warm_up` = singlestep makes the first order - 2 steps by a Runge-Kutta method of order - 1, which keeps the order.
    """
    return linear_multistep(path, sigmas, order, warm_up, final_order, lambda sigma: sigma, cfg_pp)


BETA_D, BETA_MIN = 19.9, 0.1


def vp_time(sigma: float) -> float:
    """The time at which the VP process with beta from 0.1 to 20 has this noise level   (Song et al. 2021, app. C)."""
    root = math.sqrt(BETA_MIN**2 + 2.0 * BETA_D * math.log1p(sigma * sigma))
    return (root - BETA_MIN) / BETA_D


def deis(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Order of accuracy: how many slopes are combined.", 1, 3, 1)] = 3,
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> Plan:
    """DEIS tAB: exponential Adams-Bashforth, polynomial in the VP time   (Zhang and Chen 2023, eq. 14).

    In the VE scaling the exponential integrator is plain integration over sigma, and only the polynomial knows of the
    time t, sigma^2 = exp(beta_d t^2 / 2 + beta_min t) - 1; here beta runs from 0.1 to 20. On FLOW the slope and sigma
    are the flow's own. Order 1 to 3, one model call a step. `warm_up` as in LMS.
    """
    return linear_multistep(path, sigmas, order, warm_up, final_order, vp_time, cfg_pp)


def solve_linear(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """The solution of a small square system, in float64."""
    return np.linalg.solve(np.array(matrix), np.array(right)).tolist()


def unipc_terms(
    path: Path, t: float, known: Sequence[tuple[str, float]], target: str | None, order: int, variant: str
) -> dict[Operand, float]:
    """The predictions in a UniP (no `target`) or UniC (the prediction at t is `target`) step of `order`.

    With m_0 at s and m_i at ratios r_i = (lam_i - lam_s) / h (r = 1 for the target), the residual is
    -alpha_t B(h) sum_i a_i (m_i - m_0) / r_i, where R a = b, R_ki = r_i^(k-1), b_k = k! psi_k / B(h), psi_k the k-th
    integral of e^-h; B(h) = -h (bh1) or e^-h - 1 (bh2)   (Zhao et al. 2023, eqs. 5 to 9).
    """
    (first, lam_s), *others = known
    h = path.lam(t) - lam_s
    points = [(name, (lam - lam_s) / h) for name, lam in others[: order - 1]]
    if target is not None:
        points.append((target, 1.0))
    b_of_h = -h if variant == "bh1" else math.expm1(-h)
    right = [math.factorial(k) * -h * phi(k + 1, -h) / b_of_h for k in range(1, len(points) + 1)]
    solution = [0.5] * len(points)
    if len(points) > 1:
        solution = solve_linear([[r**k for _, r in points] for k in range(len(points))], right)
    terms: dict[Operand, float] = {first: -path.alpha(t) * math.expm1(-h)}
    for (name, ratio), a in zip(points, solution, strict=True):
        share = -path.alpha(t) * b_of_h * a / ratio
        terms[name] = terms.get(name, 0.0) + share
        terms[first] -= share
    return terms


def unipc(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Order of the predictor; the corrector raises it by one.", 1, 3, 1)] = 3,
    variant: Annotated[
        Literal["bh1", "bh2"], Param("The function B(h) of the paper: bh1 for few steps without guidance, else bh2.")
    ] = "bh2",
    corrector: Annotated[bool, Param("Correct each state by the prediction made at it, at no model call.")] = True,
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> Plan:
    """UniPC in the data prediction: UniP steps, each corrected by UniC once the next prediction is known.

    See `unipc_terms`   (Zhao, Bai, Rao, Zhou and Lu 2023, algorithms 5 and 6). One model call a step. The corrected
    state keeps the prediction that was made at the uncorrected one. Steps whose log-SNR is infinite are of order 1.
    """
    stages: list[Stage] = []
    made_by = 0
    for step, (s, t) in enumerate(pairwise(sigmas)):
        lams = [path.lam(sigmas[step - i]) for i in range(step + 1)]
        rows: list[Row] = []
        if corrector and made_by:
            known = finite_points([f"previous{i}" for i in range(1, step + 1)], lams[1:])
            terms = unipc_terms(path, s, known, "denoised", made_by, variant)
            rows.append(row("x", {"base": s / sigmas[step - 1], **terms}))
        reached = order + 1 if corrector else order
        single = opening_order(warm_up, reached, finite_steps(path, sigmas, step)) if t > 0.0 else 0
        if single:
            first, *others = runge_kutta_stages(single, path, s, t, step)
            rows += [*first.rows, *remembered(step, order)]
            stages += [Stage(s, tuple(rows), step), *others]
            made_by = 0
            continue
        used = min(order, final_limit(final_order, sigmas, step))
        known = finite_points(["denoised", *(f"previous{i}" for i in range(1, step + 1))], lams)
        made_by = min(used, len(known))
        last = euler_row(path, s, t)
        if made_by > 1:
            last = row("x", {**unipc_terms(path, t, known, None, made_by, variant), "x": t / s})
        rows += [row("base", {"x": 1.0}), last, *remembered(step, order)]
        stages.append(Stage(s, tuple(rows), step))
    return finished(path, sigmas, stages, cfg_pp)


def finite_points(names: Sequence[str], lams: Sequence[float]) -> list[tuple[str, float]]:
    """The predictions that lie at a finite log-SNR, newest first."""
    return [(name, lam) for name, lam in zip(names, lams, strict=True) if math.isfinite(lam)]
