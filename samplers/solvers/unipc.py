"""UniPC: each prediction also corrects the state it was made at."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import VE, Path
from ..phi import phi, polynomial_weights
from ..plan import Operand, Row, Stage, planned, row
from .cfg_pp import CfgPP, with_cfg_pp
from .exponential_multistep import Time
from .history import FinalOrder, WarmUp, final_limit, finite_steps, known_history, opening_order
from .runge_kutta import euler_row, runge_kutta_stages

# Where ComfyUI's uni_pc ends in place of 0.
CORE_END = 0.001


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
        solution = polynomial_weights([r for _, r in points], right)
    terms: dict[Operand, float] = {first: -path.alpha(t) * math.expm1(-h)}
    for (name, ratio), a in zip(points, solution, strict=True):
        share = -path.alpha(t) * b_of_h * a / ratio
        terms[name] = terms.get(name, 0.0) + share
        terms[first] -= share
    return terms


@planned
def unipc(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Order of the predictor; the corrector raises it by one.", 1, 3, 1)] = 3,
    variant: Annotated[
        Literal["bh1", "bh2"],
        Param("The function B(h) of the paper: bh1 for few steps without guidance, else bh2.", rare=True),
    ] = "bh2",
    corrector: Annotated[
        bool, Param("Correct each state by the prediction made at it, at no model call.", rare=True)
    ] = True,
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
    time: Time = "half_log_snr",
    end: Annotated[
        Literal["zero", "core"],
        Param("Where a schedule to 0 ends: zero, or core, at 0.001 by a step of order 1, as in ComfyUI.", rare=True),
    ] = "zero",
) -> list[Stage]:
    """UniPC in the data prediction: UniP steps, each corrected by UniC once the next prediction is known.

    See `unipc_terms`   (Zhao, Bai, Rao, Zhou and Lu 2023, algorithms 5 and 6). One model call a step. The corrected
    state keeps the prediction that was made at the uncorrected one. Steps whose log-SNR is infinite are of order 1.
    `time` = log_sigma has log(1 / sigma) in the place of half log-SNR on FLOW too, and `end` = core leaves noise of
    0.001: with both it is ComfyUI's uni_pc on flow models, on schedules to 0.
    """
    clock = VE if time == "log_sigma" else path
    clocked = [clock.lam(sigma) for sigma in sigmas]
    stages: list[Stage] = []
    made_by = 0
    for step, (s, t) in enumerate(pairwise(sigmas)):
        newest = min(step, order) + 1
        lams = [clocked[step - i] for i in range(newest)]
        rows: list[Row] = []
        if corrector and made_by:
            known = finite_points([f"previous{i}" for i in range(1, newest)], lams[1:])
            terms = unipc_terms(clock, s, known, "denoised", made_by, variant)
            rows.append(row("x", {"base": s / sigmas[step - 1], **terms}))
        reached = order + 1 if corrector else order
        single = opening_order(warm_up, reached, finite_steps(clock, sigmas, step)) if t > 0.0 else 0
        if single:
            first, *others = runge_kutta_stages(single, path, s, t, step)
            rows += [*first.rows, *known_history(step, order)]
            stages += [Stage(s, tuple(rows), step), *others]
            made_by = 0
            continue
        used = min(order, final_limit(final_order, sigmas, step))
        scale = clock.towards(s, t)
        if scale is not clock:
            lams = [scale.lam(sigmas[step - i]) for i in range(newest)]
        known = finite_points(["denoised", *(f"previous{i}" for i in range(1, newest))], lams)
        made_by = min(used, len(known))
        last = to_core_end(path, s) if t == 0.0 and end == "core" else euler_row(path, s, t)
        if made_by > 1:
            last = row("x", {**unipc_terms(scale, t, known, None, made_by, variant), "x": t / s})
        rows += [row("base", {"x": 1.0}), last, *known_history(step, order)]
        stages.append(Stage(s, tuple(rows), step))
    return with_cfg_pp(path, stages, cfg_pp)


def to_core_end(path: Path, s: float) -> Row:
    """The step of order 1 to CORE_END. ComfyUI divides a picture that ends there by its alpha."""
    alpha = path.alpha(CORE_END)
    terms = {"denoised": path.gain(s, CORE_END) / alpha, "x": CORE_END / s / alpha}
    return row("x", terms, weight=1.0 / alpha)


def finite_points(names: Sequence[str], lams: Sequence[float]) -> list[tuple[str, float]]:
    """The predictions that lie at a finite log-SNR, newest first."""
    return [(name, lam) for name, lam in zip(names, lams, strict=True) if math.isfinite(lam)]
