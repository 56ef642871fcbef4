"""Restart: Heun, with an interval run again from fresh noise."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from ..parameters import InputError, Param
from ..path import Path
from ..plan import Noise, Stage, ascends, planned
from .single_step import heun_stages, noised


@planned
def restart(
    path: Path,
    sigmas: Sequence[float],
    *,
    restarts: Annotated[int, Param("How often the interval is run again.", 0, 20, 1)] = 1,
    t_min: Annotated[
        float, Param("Lower end of the interval, moved up to the next level of the schedule.", 0.001, 1000.0, 0.01)
    ] = 0.1,
    t_max: Annotated[
        float,
        Param("Upper end of the interval: noise is added up to here, or where the run began.", 0.001, 1000.0, 0.01),
    ] = 2.0,
    restart_steps: Annotated[
        int, Param("Steps of each repetition, on Karras's schedule with rho 7.", 1, 100, 1, rare=True)
    ] = 4,
    began: float | None = None,
) -> list[Stage]:
    """Restart sampling: Heun, and noise added back from t_min to t_max, K times   (Xu et al. 2023, algorithm 1).

    Two model calls a step, and 2 restarts restart_steps more. When the run has come down to the last level of the
    schedule that is not below t_min, x is noised up to t_max with fresh noise and solved down again. t_min and t_max
    are sigma / alpha: on VE the noise level itself, on FLOW sigma / (1 - sigma).

    It is not noised above the level where the run `began`, by default the first of `sigmas`: a run that begins from a
    picture would change what it was to keep. A part that ends above t_min has not come down to it and is not run again.
    With `began` = inf neither is looked at, as in version 0.1.0.

    Raises:
        InputError: t_max not above t_min.
    """
    if restarts and not t_min < t_max:
        raise InputError("t_max", f"is {t_max:g}", f"give a value above t_min = {t_min:g}")
    began = sigmas[0] if began is None else began
    low, high = path.sigma(-math.log(t_min)), min(path.sigma(-math.log(t_max)), began)
    # A level that is t_min itself is not to be lost to a rounding.
    reached = max((i for i, sigma in enumerate(sigmas) if sigma >= low * (1.0 - 1e-12)), default=0)
    if ascends(sigmas) or (sigmas[-1] > low and began < math.inf):
        restarts = 0
    stages: list[Stage] = []
    for step, (s, t) in enumerate(pairwise(sigmas)):
        stages += heun_stages(path, s, t, step)
        if step + 1 == reached and 0.0 < t < high:
            for repetition in range(restarts):
                stages += repeated(path, t, high, restart_steps, step, repetition)
    return stages


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
