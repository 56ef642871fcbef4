"""SA-Solver: Adams methods on the reverse SDE, with noise made anew in an interval of noise levels only."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import Path
from ..phi import exponential_weights
from ..plan import Noise, Operand, Row, Stage, planned, row
from .ancestral import SNoise
from .cfg_pp import CfgPP, with_cfg_pp
from .first_level import BELOW_ONE, FirstLevel, begun
from .history import WarmUp, finite_steps, known_history, opening_order
from .runge_kutta import runge_kutta_stages
from .sde import sde_step

# Stable Diffusion's noise levels at 20 % and 80 % of the way from noise to the picture.
CORE_FROM, CORE_TO = 5.09, 0.57
Terms = dict[Operand, float]


NAMES = ("denoised", *(f"previous{i}" for i in range(1, 7)))
AGED: dict[Operand, str] = dict(pairwise(NAMES))


def adams_step(alpha_t: float, lam_s: float, lam_t: float, lams: Sequence[float], eta: float) -> Terms:
    """The predictions in an exponential Adams step from lam_s to lam_t, the polynomial through those at `lams`, newest
    first, integrated exactly.

    alpha_t sum_j b_j denoised_j, b_j the integral over the step of (1 + eta) e^(-(1 + eta) (lam_t - lam)) L_j(lam). One
    at infinite log-SNR counts 0. The places are counted from lam_s in steps, so that nothing is lost where a step is
    short against the log-SNR itself.
    """
    weights = exponential_weights(lams, lam_s, lam_t, 1.0 + eta)
    return {name: alpha_t * weight for name, weight in zip(NAMES, weights, strict=False)}


def correction(made: Terms, corrected: Terms) -> Row:
    """x, reached with the predictions `made`, as it would be with those of `corrected`, the newest among them.

    Both carry x from where the step began and add the same noise, so what changes is the predictions' share.
    """
    terms: Terms = {"x": 1.0, **corrected}
    for name, value in made.items():
        older = AGED[name]
        terms[older] = terms.get(older, 0.0) - value
    return row("x", terms)


@planned
def sa_solver(
    path: Path,
    sigmas: Sequence[float],
    *,
    predictor_order: Annotated[int, Param("How many predictions a step is made of.", 1, 6, 1)] = 3,
    corrector_order: Annotated[
        int, Param("How many predictions a step is corrected with, the newest among them; 0 corrects nothing.", 0, 6, 1)
    ] = 4,
    tau: Annotated[float, Param("Strength of the noise in the interval: 0 adds none.", 0.0, 10.0, 0.01)] = 1.0,
    interval: Annotated[
        Literal["levels", "core"],
        Param("Where noise is added: levels between the two below; core from 20 % to 80 % of the model's own time."),
    ] = "levels",
    sde_start: Annotated[
        float,
        Param(
            "Highest noise level, as sigma / alpha, at which noise is added.",
            0.0,
            20000.0,
            0.01,
            only=("interval", "levels"),
        ),
    ] = 5.0,
    sde_end: Annotated[
        float,
        Param(
            "Lowest noise level, as sigma / alpha, at which noise is added.",
            0.0,
            20000.0,
            0.01,
            only=("interval", "levels"),
        ),
    ] = 0.5,
    pece: Annotated[bool, Param("Ask the model again at each corrected state, for two calls a step.")] = False,
    s_noise: SNoise = 1.0,
    warm_up: WarmUp = "singlestep",
    final_order: Annotated[
        Literal["early", "falling", "full"],
        Param(
            "Order of the last steps of a schedule that ends at 0: falling lowers it step by step; early does so a "
            "step earlier, as in ComfyUI; full keeps it up to the step to 0.",
            rare=True,
        ),
    ] = "early",
    first_level: FirstLevel = "as_given",
    cfg_pp: CfgPP = False,
    below: float = BELOW_ONE,
    core_from: float = CORE_FROM,
    core_to: float = CORE_TO,
) -> list[Stage]:
    """SA-Solver in the data prediction   (Xue and others 2023, eqs. 14 to 18 and algorithm 1).

    x_t = t / s e^(-tau^2 h) x + alpha_t sum_j b_j denoised_j + t sqrt(1 - e^(-2 tau^2 h)) noise, b_j the integral of
    (1 + tau^2) e^(-(1 + tau^2) (lam_t - lam)) times the Lagrange polynomial through the last predictions. The corrector
    takes the step again with the prediction made at its end, and the same noise. tau acts in steps to a level of the
    interval, and is 0 elsewhere; tau^2 is the eta of other solvers.

    One model call a step. Without `pece` the prediction made at the uncorrected state is kept. With tau = 0 the order
    is the smaller of `predictor_order` + 1 and `corrector_order`, up to 4; `warm_up` = singlestep then makes the first
    steps by a Runge-Kutta method. The step to 0, and the first from sigma = 1 on FLOW, are of order 1.
    """
    levels = begun(path, sigmas, first_level, below)
    reached = min(predictor_order + 1, corrector_order) if corrector_order else predictor_order
    # What a step was made of, it is corrected from after one step more.
    remembered = max(predictor_order, corrector_order - 1) if corrector_order else predictor_order - 1
    early = {"early": 1, "falling": 0, "full": -9}[final_order] if levels[-1] == 0.0 else -9
    high, low = (
        (core_from, core_to)
        if interval == "core"
        else (path.sigma(-math.log(v)) if v else 0.0 for v in (sde_start, sde_end))
    )
    lams = [path.lam(level) for level in levels]
    stages: list[Stage] = []
    made: Terms = {}
    eta = 0.0
    for step, (s, t) in enumerate(pairwise(levels)):
        left = len(levels) - 1 - step
        rows: list[Row] = []
        if made and corrector_order:
            used = max(min(corrector_order, left + 1 - early, step + 1), 1)
            known = [lams[i] for i in range(step, step - used, -1)]
            rows.append(correction(made, adams_step(path.alpha(s), lams[step - 1], lams[step], known, eta)))
            if pece:
                stages.append(Stage(s, tuple(rows), step))
                rows = []
        made = {}
        keep = known_history(step, remembered)
        single = 0
        if tau == 0.0 and t > 0.0:
            single = opening_order(warm_up, min(reached, 4), finite_steps(path, levels, step))
        if single:
            first, *others = runge_kutta_stages(single, path, s, t, step)
            stages += [Stage(s, (*rows, *first.rows, *keep), step), *others]
            continue
        eta = tau * tau if low <= t <= high else 0.0
        carry, gain, up = sde_step(path, s, t, eta)
        terms: Terms = {"denoised": gain}
        clock = path.towards(s, t)
        if t > 0.0 and math.isfinite(clock.lam(s)):
            used = max(min(predictor_order, left - early, step + 1), 1)
            newest = range(step, step - used, -1)
            known = [lams[i] if clock is path else clock.lam(levels[i]) for i in newest]
            terms = adams_step(clock.alpha(t), known[0], clock.lam(t), known, eta)
            made = terms
        last = row("x", {**terms, "x": carry, Noise("step", s, t): s_noise * up})
        stages.append(Stage(s, (*rows, last, *keep), step))
    return with_cfg_pp(path, stages, cfg_pp)
