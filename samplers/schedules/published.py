"""Schedules that were published as lists of noise levels, and one that other programs know by a name alone."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from ..parameters import InputError, Param
from .ends import Denoise, DenoiseMode, LastSigma, PartLevels, Steps, finished, finished_part, sampled
from .tables import trained_sigmas

SVD = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
ALIGNED = {
    "SD1": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "SDXL": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}


def align_your_steps(
    steps: Steps = 10,
    *,
    model_type: Annotated[
        Literal["SD1", "SDXL", "SVD"], Param("The model family that the levels were optimised for.")
    ] = "SD1",
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "drop_penultimate",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """Eleven published noise levels of a model family, and log-linear interpolation between them (Sabour et al. 2024).

    Ten steps with last_sigma = sigma_min go from level to level. As they are used, 0 stands in the place of the last
    level, which is drop_penultimate. SD1 and SDXL were published as trained timesteps of Stable Diffusion, SVD as noise
    levels from 700 down.
    """
    if model_type == "SVD":
        published = SVD
    else:
        table = trained_sigmas()
        published = [table[t] for t in ALIGNED[model_type]]
    levels = between_published(published)
    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


def between_published(published: Sequence[float]) -> PartLevels:
    """The levels at even fractions of the list, from where the part begins on; log sigma is linear in between."""
    logs = [math.log(sigma) for sigma in published]

    def level(u: float) -> float:
        place = u * (len(logs) - 1)
        i = min(int(place), len(logs) - 2)
        return math.exp(logs[i] + (place - i) * (logs[i + 1] - logs[i]))

    return sampled(level)


OPTIMAL = {
    "FLUX": (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
    "Wan": (
        *(1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973),
        *(0.968, 0.96, 0.946, 0.927, 0.902, 0.864, 0.776, 0.539, 0.208, 0.001),
    ),
    "Chroma": (
        *(0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9, 0.881),
        *(0.858, 0.832, 0.802, 0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355, 0.311, 0.27),
        *(0.232, 0.199, 0.169, 0.143, 0.12, 0.101, 0.084, 0.07, 0.058, 0.048, 0.001),
    ),
}


def optimal_steps(
    steps: Steps = 20,
    *,
    model_type: Annotated[
        Literal["FLUX", "Wan", "Chroma"], Param("The model family that the levels were optimised for.")
    ] = "FLUX",
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "drop_penultimate",
) -> tuple[float, ...]:
    """Published noise levels of a model family, and log-linear interpolation between them (Pei et al. 2025).

    They are the levels of 10 steps for FLUX, 20 for Wan and 40 for Chroma. As they are used, 0 stands in the place of
    the last one, which is drop_penultimate. `denoise` takes the last steps of a longer schedule, and no other: the
    levels were chosen together, for a whole run.
    """
    levels = between_published(OPTIMAL[model_type])
    return finished(lambda n: levels(n, 1.0), steps, denoise, last_sigma)


def bong_tangent(steps: int) -> tuple[float, ...]:
    """Two arcs of an arctangent, from 1 to 1/2 and from 1/2 to 0   (RES4LYF 2025, `bong_tangent`).

    With N = steps + 2, m = floor(0.6 N) and g(x) = atan(8 x / N), whatever the model:
    sigma_i = (1 + (g(m - i) - g(1)) / (g(m) - g(1))) / 2 for i from 0 to m - 2,
    sigma_i = (1 - g(j) / g(N - m - 1)) / 2 for j = i - (m - 1) from 0 to N - m - 1, the last of which is 0.

    The first arc falls slowly and then ever faster to 1/2, the second one fast and then ever more slowly.

    Raises:
        InputError: one step, in which there is no first arc.
    """
    if steps < 2:
        problem = f"is {steps}, and bong_tangent is made of two arcs of a step or more"
        raise InputError("steps", problem, "give at least 2")
    count = steps + 2
    turn = 3 * count // 5

    def g(x: float) -> float:
        return math.atan(8.0 * x / count)

    high = [(1.0 + (g(turn - i) - g(1)) / (g(turn) - g(1))) / 2.0 for i in range(turn - 1)]
    low = [(1.0 - g(j) / g(count - turn - 1)) / 2.0 for j in range(count - turn)]
    return (*high, *low)
