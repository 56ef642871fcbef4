"""ER-SDE: the reverse SDE with a free choice of how much noise each step makes anew."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np

from ..parameters import Param
from ..path import VE, Path
from ..phi import Values, legendre, polynomial_weights
from ..plan import Noise, Operand, Stage, ascends, planned, row
from .ancestral import SNoise
from .cfg_pp import CfgPP, with_cfg_pp
from .exponential_multistep import Weights
from .first_level import BELOW_ONE, FirstLevel, begun
from .history import FinalOrder, WarmUp, final_limit, finite_steps, known_history, opened, opening_order
from .runge_kutta import euler_row, runge_kutta_stages

# Of log rho: log(phi(rho) / rho), and the derivative of that. It never falls with rho, or no noise would be enough.
Scaler = Callable[[Values], tuple[Values, Values]]


def er_sde_scaler(log_rho: Values) -> tuple[Values, Values]:
    """phi(rho) = rho (e^(rho^0.3) + 10)."""
    root = np.exp(0.3 * log_rho)
    whole = np.logaddexp(root, math.log(10.0))
    return whole, 0.3 * root * np.exp(root - whole)


def scaler_of(name: str, eta: float) -> Scaler:
    if name == "er_sde":
        return er_sde_scaler
    power = eta if name == "reverse_sde" else 0.0
    return lambda log_rho: (power * log_rho, np.full_like(log_rho, power))


def moments(scaler: Scaler, log_s: Values, log_t: Values, count: int) -> Values:
    """The integrals from rho_t to rho_s of phi(rho_t) phi'(rho) / phi(rho)^2 tau^k, for each step a row of those of
    each k below `count`.

    tau = (rho - rho_s) / (rho_t - rho_s) is 0 at s and 1 at t. That of k = 0 is 1 - phi(rho_t) / phi(rho_s); the others
    are summed by Gauss and Legendre's rule in log rho, in which everything is smooth and positive.
    """
    end = scaler(log_t)[0]
    points, weights = legendre()
    half = 0.5 * (log_s - log_t)[:, None]
    at = log_t[:, None] + half * (1.0 + points)
    value, derivative = scaler(at)
    kernel = np.exp((log_t + end)[:, None] - at - value) * (1.0 + derivative) * (half * weights)
    tau = np.expm1(at - log_s[:, None]) / np.expm1(log_t - log_s)[:, None]
    first = -np.expm1(log_t - log_s + end - scaler(log_s)[0])
    return np.stack([first, *((kernel * tau**k).sum(axis=1) for k in range(1, count))], axis=1)


def integrated(
    scaler: Scaler, steps: Sequence[tuple[float, float]], count: int
) -> tuple[list[list[float]], list[float]]:
    """`moments` and log r of each step between two log rhos; not finite where an end is not."""
    log_s, log_t = np.array(steps).reshape(-1, 2).T
    with np.errstate(invalid="ignore", over="ignore"):
        kept = scaler(log_t)[0] - scaler(log_s)[0]
        return moments(scaler, log_s, log_t, count).tolist(), kept.tolist()


def published_weights(scaled: Sequence[float], integrals: Sequence[float]) -> list[float]:
    """The weights of the three predictions at `scaled` places, newest (0) first, as published.

    The first derivative of the third stage is the difference of the last two predictions, which the second derivative
    is not taken out of, so that it is of order 2.
    """
    _, r1, r2 = scaled
    first = [-1.0 / r1, 1.0 / r1, 0.0]
    before = [0.0, 1.0 / (r1 - r2), -1.0 / (r1 - r2)]
    bend = [(a - b) / -r2 for a, b in zip(first, before, strict=True)]
    whole = [integrals[0], 0.0, 0.0]
    return [w + integrals[1] * a + integrals[2] * b for w, a, b in zip(whole, first, bend, strict=True)]


@planned
def er_sde(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Stages: how many predictions are combined.", 1, 3, 1)] = 3,
    scaler: Annotated[
        Literal["er_sde", "reverse_sde", "ode"],
        Param("How much noise is made anew: er_sde little, reverse_sde all of it with eta 1, ode none."),
    ] = "er_sde",
    eta: Annotated[
        float,
        Param("Strength of the noise of reverse_sde; 0 is the ODE.", 0.0, 10.0, 0.01, only=("scaler", "reverse_sde")),
    ] = 1.0,
    s_noise: SNoise = 1.0,
    weights: Weights = "exact",
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    first_level: FirstLevel = "as_given",
    cfg_pp: CfgPP = False,
    below: float = BELOW_ONE,
) -> list[Stage]:
    """ER-SDE-Solver   (Cui, Zhang, Bao and Liao 2023, algorithm 5).

    With rho = sigma / alpha, phi the noise scaler and r = phi(rho_t) / phi(rho_s):
    x_t = alpha_t / alpha_s r x + alpha_t sum_j w_j denoised_j + alpha_t sqrt(rho_t^2 - r^2 rho_s^2) noise,
    w_j the integral of phi(rho_t) phi'(rho) / phi(rho)^2 times the polynomial in rho through the last predictions.
    phi is rho (e^(rho^0.3) + 10) for er_sde, rho^(1 + eta) for reverse_sde, rho for ode.

    One model call a step. With ode it is of order `order`; `weights` = published has the third stage of the paper,
    which is of order 2, and `warm_up` = singlestep makes the first step of order 3 by the midpoint rule, one call more.
    From sigma = 1 on FLOW, where rho is infinite, the first step is of order 1.
    """
    levels, phi = begun(path, sigmas, first_level, below), scaler_of(scaler, eta)
    still = scaler == "ode" or (scaler == "reverse_sde" and eta == 0.0)
    # On FLOW rho runs away towards 1, where sigma does not.
    up = ascends(levels)
    clocks = [VE if up and path.alpha(t) < 0.1 else path for t in levels[1:]]
    ends = [(-clock.lam(s), -clock.lam(t)) for clock, (s, t) in zip(clocks, pairwise(levels), strict=True)]
    integrals, kept = integrated(phi, ends, order)
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(levels)):
        single = opening_order(warm_up, order, finite_steps(path, levels, step)) if still and t > 0.0 else 0
        if single:
            stages += opened(runge_kutta_stages(single, path, s, t, step), known_history(step, order - 1))
            continue
        used = min(order, step + 1, final_limit(final_order, levels, step))
        begin, end = ends[step]
        if t == 0.0 or (still and math.isinf(begin)):
            last = euler_row(path, s, t)
        elif math.isinf(begin):
            last = row("x", {"denoised": path.alpha(t), Noise("step", s, t): s_noise * t})
        else:
            logs = [-clocks[step].lam(levels[step - i]) for i in range(used)]
            known = [math.expm1(log - begin) / math.expm1(end - begin) for log in logs if math.isfinite(log)]
            weigh = published_weights if weights == "published" and len(known) == 3 else polynomial_weights
            found = weigh(known, integrals[step][: len(known)])
            names: list[Operand] = ["denoised", *(f"previous{i}" for i in range(1, len(known)))]
            terms = {name: clocks[step].alpha(t) * weight for name, weight in zip(names, found, strict=True)}
            fresh = {Noise("step", s, t): s_noise * t * math.sqrt(-math.expm1(2.0 * kept[step]))}
            last = row("x", {**terms, "x": t / s * math.exp(kept[step]), **fresh})
        stages.append(Stage(s, (last, *known_history(step, order - 1)), step))
    return with_cfg_pp(path, stages, cfg_pp)
