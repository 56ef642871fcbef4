"""Refined exponential solvers: multistep, and singlestep by exponential Runge-Kutta methods."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import InputError, Param
from ..path import VE, Path
from ..phi import phi
from ..plan import Noise, Operand, Stage, ascends, planned, row
from .ancestral import Eta, SNoise, ancestral_split
from .cfg_pp import CfgPP, with_cfg_pp
from .exponential_multistep import Time, adams_terms
from .first_level import BELOW_ONE, FirstLevel, begun
from .history import FinalOrder, WarmUp, final_limit, finite_steps, known_history, opened, opening_order
from .runge_kutta import KEEP_FIRST, KEEP_START, euler_row, runge_kutta_stages
from .sde import noise_along, sde_step

KEEP_INNER = row("inner1", {"denoised": 1.0})


@planned
def res_multistep(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[int, Param("Order of accuracy: how many predictions are combined.", 2, 3, 1)] = 2,
    eta: Eta = 0.0,
    s_noise: SNoise = 1.0,
    time: Time = "half_log_snr",
    warm_up: WarmUp = "singlestep",
    final_order: FinalOrder = "falling",
    cfg_pp: CfgPP = False,
) -> list[Stage]:
    """Refined exponential solver, multistep   (Zhang, Song and Chen 2023).

    x_down = (down / s) x + alpha_down sum_j w_j denoised_j, w_j the integral of e^(lam - lam_down) times the Lagrange
    polynomial through the last `order` predictions. Of order 2 the weights are those of the paper,
    b_2 = phi_2(-h) / c_2 and b_1 = phi_1(-h) - b_2, with c_2 = (lam_previous - lam_s) / h.

    Order 2 or 3, one model call a step. With eta each step goes to the level `down` of `ancestral_split` and adds noise
    back up to t. `time` = log_sigma has log(1 / sigma) in the place of lam and 1 in that of alpha, which they are on
    VE; on FLOW it is what ComfyUI's res_multistep does. `warm_up` is for order 3 without eta.
    """
    clock = VE if time == "log_sigma" else path
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        single = opening_order(warm_up, order, finite_steps(clock, sigmas, step)) if t > 0.0 and eta == 0.0 else 0
        if single:
            stages += opened(runge_kutta_stages(single, path, s, t, step), known_history(step, order - 1))
            continue
        down, rescale, up = ancestral_split(path, s, t, eta)
        used = min(order, final_limit(final_order, sigmas, step))
        terms = adams_terms(clock, sigmas, step, used, 0.0, 1.0, down)
        x = {name: rescale * value for name, value in {**terms, "x": down / s}.items()}
        rows = (row("x", {**x, Noise("step", s, t): s_noise * up}), *known_history(step, order - 1))
        stages.append(Stage(s, rows, step))
    return with_cfg_pp(path, stages, cfg_pp)


def inner_level(path: Path, s: float, t: float, c: float) -> float:
    return t if c == 1.0 else path.between(s, t, c)


def outer_weights(z: float, c2: float, c3: float | None, solver_type: str) -> tuple[float, ...]:
    """The weights b_j of the predictions at 0, c2 (and c3) over a step of length z, times z: their sum is 1 - e^-z.

    Order 2: b_2 = phi_2 / c_2, or phi_1 / (2 c_2). Order 3: b_3 = phi_2 / (gamma c_2 + c_3) and b_2 = gamma b_3, with
    gamma = (3 c_3^2 - 2 c_3) / (c_2 (2 - 3 c_2)), put so that nothing is divided by what they share.
    """
    whole, turn = z * phi(1, -z), z * phi(2, -z)
    if c3 is None:
        b2 = turn / c2 if solver_type == "phi_2" else whole / (2.0 * c2)
        return whole - b2, b2
    apart = 3.0 * (c3 - c2)
    b2, b3 = turn * (3.0 * c3 - 2.0) / (c2 * apart), turn * (2.0 - 3.0 * c2) / (c3 * apart)
    return whole - b2 - b3, b2, b3


def inner_weights(z: float, c2: float, c3: float) -> tuple[float, float]:
    """The weights a_31 and a_32 of the state at c3, times z: a_32 = gamma c_2 phi_2(-c_2 z) + c_3^2 / c_2 phi_2(-c_3 z)
    and a_31 = c_3 phi_1(-c_3 z) - a_32."""
    gamma = c3 * (3.0 * c3 - 2.0) / (c2 * (2.0 - 3.0 * c2))
    a32 = z * (gamma * c2 * phi(2, -c2 * z) + c3 * c3 / c2 * phi(2, -c3 * z))
    return z * c3 * phi(1, -c3 * z) - a32, a32


def exponential_stages(
    path: Path, s: float, t: float, step: int, nodes: Sequence[float], solver_type: str, eta: float, s_noise: float
) -> list[Stage]:
    """One exponential Runge-Kutta step of the prediction from s to t > 0, both at a finite log-SNR."""
    c2, c3 = nodes[0], nodes[1] if len(nodes) > 1 else None
    z = (1.0 + eta) * (path.lam(t) - path.lam(s))
    levels = [inner_level(path, s, t, c) for c in nodes]
    noise = noise_along(path, s, (*levels, t), eta)
    names: list[Operand] = ["first", *(f"inner{i}" for i in range(1, len(nodes)))]

    def reached(level: float, start: Operand, weights: Sequence[float], newest: int) -> dict[Operand, float]:
        """x at a level: the state carried, the predictions by their weights, the newest of them under its own name."""
        operands = [*names[:newest], "denoised"]
        alpha = path.alpha(level)
        terms = {name: alpha * weight for name, weight in zip(operands, weights, strict=True)}
        terms[start] = level / s * path.posterior(s, level) ** eta
        for each, value in noise[level].items():
            terms[each] = s_noise * value
        return terms

    first = reached(levels[0], "x", (z * c2 * phi(1, -c2 * z),), 0)
    keep = (KEEP_START, KEEP_FIRST)
    stages = [Stage(s, (*keep, row("x", first)), step)]
    if c3 is not None:
        second = reached(levels[1], "start", inner_weights(z, c2, c3), 1)
        stages.append(Stage(levels[0], (KEEP_INNER, row("x", second)), step))
    last = reached(t, "start", outer_weights(z, c2, c3, solver_type), len(nodes))
    return [*stages, Stage(levels[-1], (row("x", last),), step)]


@planned
def res_singlestep(
    path: Path,
    sigmas: Sequence[float],
    *,
    order: Annotated[
        Literal["2", "3"], Param("Order of accuracy, which is also the number of model calls a step.")
    ] = "2",
    c2: Annotated[
        float, Param("Where in the step, in half log-SNR, the second model call is made.", 0.05, 1.0, 0.01)
    ] = 0.5,
    c3: Annotated[
        float,
        Param("Where in the step the third model call is made.", 0.05, 1.0, 0.01, only=("order", "3")),
    ] = 1.0,
    eta: Eta = 0.0,
    s_noise: SNoise = 1.0,
    solver_type: Annotated[
        Literal["phi_2", "phi_1"],
        Param(
            "Weight of the second prediction: phi_2 is the exact integral of a line, phi_1 the midpoint's.",
            rare=True,
            only=("order", "2"),
        ),
    ] = "phi_2",
    first_level: FirstLevel = "as_given",
    cfg_pp: CfgPP = False,
    below: float = BELOW_ONE,
) -> list[Stage]:
    """Refined exponential solver, singlestep   (Zhang, Song and Chen 2023; Hochbruck and Ostermann 2005,
    section 5).

    x_t = carry x + alpha_t z sum_j b_j denoised_j, the second prediction made at c2 of the step in half log-SNR, the
    third at c3; z = (1 + eta) h, and carry and the added noise are those of `sde_step`, which is SEEDS-2
    (Gonzalez and others 2023) at order 2. `outer_weights` and `inner_weights` have the formulas.

    Order 2 or 3 with eta 0, as many model calls a step, one in the step to 0. c2 = 1 is the exponential Heun method.
    The noise at the inner levels and at t is of one path. From sigma = 1 on FLOW, where log-SNR is infinite, the step
    is a Runge-Kutta step of the same order in sigma, with eta one of order 1 with one call.

    Raises:
        InputError: order 3 with c2 = 2/3 or with c3 = c2, where there is no method of that order.
    """
    nodes = (c2,) if order == "2" else (c2, c3)
    if order == "3" and abs(2.0 - 3.0 * c2) < 1e-3:
        raise InputError("c2", f"is {c2:g}: at 2/3 there is no method of order 3", "give 0.5, or another value")
    if order == "3" and abs(c3 - c2) < 1e-3:
        raise InputError("c3", f"is {c3:g}, where c2 is too", "give a value apart from c2")
    clock = VE if ascends(sigmas) else path
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(begun(path, sigmas, first_level, below))):
        if t == 0.0:
            stages.append(Stage(s, (euler_row(path, s, t),), step))
        elif not clock.is_noise(s):
            stages += exponential_stages(clock, s, t, step, nodes, solver_type, eta, s_noise)
        elif eta == 0.0:
            stages += runge_kutta_stages(int(order), path, s, t, step)
        else:
            carry, gain, up = sde_step(path, s, t, eta)
            terms: dict[Operand, float] = {"denoised": gain, "x": carry, Noise("step", s, t): s_noise * up}
            stages.append(Stage(s, (row("x", terms),), step))
    return with_cfg_pp(path, stages, cfg_pp)
