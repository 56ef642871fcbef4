"""DPM-Solver-fast: one model call for each step of the schedule, three of them one step of order 3."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import Param
from ..path import VE, Path
from ..plan import Stage, planned, row
from .res import KEEP_INNER, inner_weights, outer_weights
from .runge_kutta import KEEP_FIRST, KEEP_START, Point, euler_row
from .single_step import noise_step

# A step of order 3 divides by 2/3 - c2, c2 and c3 - c2: how near they may come to 0.
LATEST_C2, LEAST = 0.55, 0.05


def grouped_stages(clock: Path, levels: Sequence[float], step: int) -> list[Stage]:
    """One step of DPM-Solver through all of `levels`, 2 to 4 of them, of an order one below their number.

    Its inner points are levels of the schedule, at c2 and c3 of the step in half log-SNR. Of order 2 it is
    x_t = alpha_t / alpha_s x - t (e^h - 1) (eps_s + (eps_c2 - eps_s) / 2 c2)   (Lu et al. 2022a, algorithm 4); of order
    3 the exponential Runge-Kutta method of `res.outer_weights` and `res.inner_weights` in the noise prediction, which
    at c2 = 1/3 and c3 = 2/3 is their algorithm 5.
    """
    s, *inner, t = levels
    if not inner:
        return [Stage(s, (euler_row(clock, s, t),), step)]
    h = clock.lam(t) - clock.lam(s)
    first: Point = ("start", "first", s)
    opens = Stage(s, (KEEP_START, KEEP_FIRST, euler_row(clock, s, inner[0])), step)
    c2, *later = ((clock.lam(level) - clock.lam(s)) / h for level in inner)
    if not later:
        whole, share = math.expm1(h), 0.5 / c2
        last = noise_step(clock, s, t, [(first, whole * (1.0 - share)), (("x", "denoised", inner[0]), whole * share)])
        return [opens, Stage(inner[0], (last,), step)]
    (c3,) = later
    a31, a32 = (-weight for weight in inner_weights(-h, c2, c3))
    b1, b2, b3 = (-weight for weight in outer_weights(-h, c2, c3, "phi_2"))
    second: Point = ("state1", "inner1", inner[0])
    to_c3 = noise_step(clock, s, inner[1], [(first, a31), (second, a32)])
    last = noise_step(clock, s, t, [(first, b1), (second, b2), (("x", "denoised", inner[1]), b3)])
    middle = Stage(inner[0], (row("state1", {"x": 1.0}), KEEP_INNER, to_c3), step)
    return [opens, middle, Stage(inner[1], (last,), step)]


def core_orders(steps: int) -> list[int]:
    """Those of k-diffusion's dpm_solver_fast (Lu et al. 2022a, section 3.4), whose last step is of a lower order."""
    if steps % 3 == 0:
        return [3] * (steps // 3 - 1) + [2, 1]
    return [3] * (steps // 3) + [steps % 3]


def core_groups(sigmas: Sequence[float]) -> list[tuple[float, ...]]:
    """The levels of each group: even in log sigma from the first level to the last above 0, and so within a group."""
    low = sigmas[-1] or sigmas[-2]
    orders = core_orders(len(sigmas) - 1)
    begin, end = math.log(sigmas[0]), math.log(low)
    ends = [sigmas[0], *(math.exp(begin + i / len(orders) * (end - begin)) for i in range(1, len(orders))), low]
    return [
        (s, *(math.exp(math.log(s) + j / order * math.log(t / s)) for j in range(1, order)), t)
        for (s, t), order in zip(pairwise(ends), orders, strict=True)
    ]


def given_groups(path: Path, sigmas: Sequence[float]) -> list[tuple[float, ...]]:
    """Levels of the schedule, three steps together; the step to 0 alone. Three that no step of order 3 can be made of
    are two and one."""
    finite = len(sigmas) - 1 - (sigmas[-1] == 0.0)
    found: list[tuple[float, ...]] = []
    at = 0
    while at < finite:
        levels = tuple(sigmas[at : min(at + 3, finite) + 1])
        whole = len(levels) < 4 or apart(clock_of(path, levels), levels)
        found += [levels] if whole else [levels[:3], levels[2:]]
        at += 3
    return [*found, tuple(sigmas[-2:])] if sigmas[-1] == 0.0 else found


def clock_of(path: Path, levels: Sequence[float]) -> Path:
    """In log sigma from or to where there is nothing of the picture: half log-SNR is infinite there."""
    return VE if path.is_noise(levels[0]) or path.is_noise(levels[-1]) else path


def apart(clock: Path, levels: Sequence[float]) -> bool:
    lam_s, lam_2, lam_3, lam_t = (clock.lam(level) for level in levels)
    c2, c3 = (lam_2 - lam_s) / (lam_t - lam_s), (lam_3 - lam_s) / (lam_t - lam_s)
    return LEAST <= c2 <= LATEST_C2 and c3 - c2 >= LEAST


@planned
def dpm_fast(
    path: Path,
    sigmas: Sequence[float],
    *,
    levels: Annotated[
        Literal["as_given", "core"],
        Param(
            "Noise levels of the model calls: as_given those of the schedule; core as many even in log sigma between "
            "its ends, to its last level above 0, as in ComfyUI's dpm_fast."
        ),
    ] = "as_given",
) -> list[Stage]:
    """DPM-Solver-fast   (Lu et al. 2022a, section 3.4; k-diffusion, sample_dpm_fast).

    One model call a step of the schedule. Three steps together make one of order 3, whose inner points are the levels
    between, see `grouped_stages`; one or two that are left over make one of order 1 or 2, and the step to 0 is of order
    1. After each model call x is at the next level of the schedule. No memory from group to group. On FLOW a group from
    sigma = 1 is taken in log sigma.

    With `levels` = core the calls are at levels even in log sigma and the step is in log sigma on FLOW too; the last
    step is of a lower order, and x keeps the noise of the last level above 0.
    """
    if levels == "core":
        if len(sigmas) == 2 and sigmas[-1] == 0.0:
            return [Stage(sigmas[0], (), 0)]
        groups, clocks = core_groups(sigmas), VE
    else:
        groups, clocks = given_groups(path, sigmas), path
    found = [
        stage
        for number, group in enumerate(groups)
        for stage in grouped_stages(clock_of(clocks, group) if group[-1] > 0.0 else path, group, number)
    ]
    return [stage._replace(step=step) for step, stage in enumerate(found)]
