"""Schedules of rectified flow, where sigma is time and runs from 1 to 0."""

import math
from typing import Annotated, Literal

from ..parameters import InputError, Param, counted
from .ends import Denoise, LastSigma, Steps, finished, fractions

Pixels = Annotated[
    int, Param("Of the picture, for shift_from = resolution.", 16, 16384, 16, only=("shift_from", "resolution"))
]


def flow(
    steps: Steps = 20,
    *,
    shift: Annotated[
        float,
        Param(
            "Above 1 more steps at high noise: 3 for SD3, 5 to 12 for Wan; 1 is even.",
            0.01,
            100.0,
            0.01,
            only=("shift_from", "value"),
        ),
    ] = 3.0,
    shift_from: Annotated[
        Literal["value", "resolution"],
        Param(
            "value takes shift, or the model's own when it is wired; resolution makes it from the size, as Flux does."
        ),
    ] = "value",
    width: Pixels = 1024,
    height: Pixels = 1024,
    base_shift: Annotated[
        float,
        Param(
            "log of the shift at 256 x 256, for resolution.",
            0.0,
            10.0,
            0.01,
            rare=True,
            only=("shift_from", "resolution"),
        ),
    ] = 0.5,
    max_shift: Annotated[
        float,
        Param(
            "log of the shift at 1024 x 1024, for resolution.",
            0.0,
            10.0,
            0.01,
            rare=True,
            only=("shift_from", "resolution"),
        ),
    ] = 1.15,
    t_min: Annotated[
        float,
        Param(
            "Unshifted time of the lowest level above 0; 0 is 1 / steps: even steps to 0.", 0.0, 0.99, 0.001, rare=True
        ),
    ] = 0.0,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
) -> tuple[float, ...]:
    """sigma_i = shift t_i / (1 + (shift - 1) t_i) with t_i even from 1 to t_min, then 0   (Esser et al. 2024, eq. 23).

    For resolution, log(shift) is base_shift + (max_shift - base_shift) (tokens - 256) / (4096 - 256); see `flux_shift`.
    """
    if shift_from == "resolution":
        shift = flux_shift(width, height, base_shift, max_shift)

    def levels(n: int) -> list[float]:
        last = t_min or 1.0 / n
        times = [1.0 + u * (last - 1.0) for u in fractions(n)]
        return [shift * t / (1.0 + (shift - 1.0) * t) for t in times]

    return finished(levels, steps, denoise, last_sigma)


def flux_shift(width: int, height: int, base_shift: float = 0.5, max_shift: float = 1.15) -> float:
    """The shift of Flux for a picture of this size, exp(mu)   (Black Forest Labs 2024, flux, `time_shift`).

    mu is linear in the number of tokens, one for 16 x 16 pixels: base_shift at 256, max_shift at 4096.
    """
    tokens = width * height / 256.0
    return math.exp(base_shift + (max_shift - base_shift) * (tokens - 256.0) / (4096.0 - 256.0))


def linear_quadratic(
    steps: Steps = 20,
    *,
    threshold_noise: Annotated[
        float, Param("How far the even first half of the steps goes, as a part of the whole.", 0.001, 0.5, 0.001)
    ] = 0.025,
    linear_steps: Annotated[int, Param("Number of even steps; 0 is half of them.", 0, 10000, 1)] = 0,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    sigma_max: float = 1.0,
) -> tuple[float, ...]:
    """Even steps at high noise, then growing ones: 1 - sigma is linear, then quadratic (Polyak et al. 2024, 3.4.2).

    With m linear steps of n, threshold d and r = n - m, 1 - sigma_i is i d / m up to step m and there goes on as the
    parabola with the same value and slope that reaches 1 at step n:
    1 - sigma_i = d + (d / m) (i - m) + (1 - d - r d / m) ((i - m) / r)^2.

    `steps` = 1 is (sigma_max, 0). More linear steps than leave one quadratic step are cut down to that.

    Raises:
        InputError: so few linear steps that the parabola would pass 1 before step n: r d / m > 2 (1 - d).
    """

    def levels(n: int) -> list[float]:
        m = min(linear_steps or n // 2, n - 1)
        if m and (n - m) * threshold_noise / m > 2.0 * (1.0 - threshold_noise):
            problem = f"is {m}, and {counted(n - m, 'step')} beginning as long as these would pass 0 before the end"
            fewest = math.ceil(n * threshold_noise / (2.0 - threshold_noise))
            raise InputError("linear_steps", problem, f"give at least {fewest}, or lower threshold_noise")
        rest, slope = n - m, threshold_noise / m if m else 0.0
        start = threshold_noise if m else 0.0

        def risen(i: int) -> float:
            if i <= m:
                return slope * i
            return start + slope * (i - m) + (1.0 - start - rest * slope) * ((i - m) / rest) ** 2

        return [sigma_max * (1.0 - risen(i)) for i in range(n)]

    return finished(levels, steps, denoise, last_sigma)
