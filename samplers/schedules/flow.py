"""Schedules of rectified flow, where sigma is time and runs from 1 to 0."""

import math
from typing import Annotated, Literal

from ..parameters import InputError, Param, counted
from .ends import Denoise, DenoiseMode, LastSigma, Steps, finished_part, fractions

Pixels = Annotated[
    int, Param("Of the picture, for shift_from = resolution.", 16, 16384, 16, only=("shift_from", "resolution"))
]
Size = Annotated[int, Param("Of the picture, in pixels.", 16, 16384, 1)]


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
            "Unshifted time of the lowest level above 0; 0 is 1 / steps: even steps to 0.",
            0.0,
            0.99,
            0.001,
            rare=True,
            only=("t_min_from", "value"),
        ),
    ] = 0.0,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
    t_min_from: Annotated[
        Literal["value", "sigma_min"],
        Param(
            "value takes t_min; sigma_min is the model's lowest level, as in ComfyUI's normal and sgm_uniform.",
            rare=True,
        ),
    ] = "value",
    sigma_min: float | None = None,
) -> tuple[float, ...]:
    """sigma_i = shift t_i / (1 + (shift - 1) t_i) with t_i even from 1 to t_min, then 0   (Esser et al. 2024, eq. 23).

    For resolution, log(shift) is base_shift + (max_shift - base_shift) (tokens - 256) / (4096 - 256); see `flux_shift`.
    For t_min_from = sigma_min, t_min is the lowest trained level, which is a shifted time and so shifted twice; without
    a model that of time 0.001. With denoise_mode = exact t_i runs from denoise to t_min, or to denoise / steps.

    Raises:
        InputError: with exact, a denoise that is not above t_min.
    """
    if shift_from == "resolution":
        shift = flux_shift(width, height, base_shift, max_shift)
    if t_min_from == "sigma_min":
        t_min = shifted(FIRST_TIME, shift) if sigma_min is None else sigma_min

    def levels(n: int, part: float) -> list[float]:
        return [shifted(t, shift) for t in times(n, part, t_min)]

    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


# Of 1000 trained timesteps.
FIRST_TIME = 0.001
# A shift of e^17 has all levels at 1 but for the roundings of float32; more than e^700 no float holds.
LARGEST_MU = 700.0


def shifted(t: float, shift: float) -> float:
    """shift t / (1 + (shift - 1) t): the odds t / (1 - t) times shift   (Esser et al. 2024, eq. 23)."""
    return shift * t / (1.0 + (shift - 1.0) * t)


def times(count: int, part: float, t_min: float = 0.0) -> list[float]:
    """Even times from `part` to t_min, or where that is 0 to part / count, one step above 0.

    Raises:
        InputError: a part that does not reach above t_min.
    """
    if t_min >= part:
        problem = f"is {part:g}, and the lowest time of the schedule is {t_min:g}"
        raise InputError("denoise", problem, "raise it, or choose a lower t_min")
    last = t_min / part or 1.0 / count
    return [part * (1.0 + u * (last - 1.0)) for u in fractions(count)]


# With a shift of e^16 float32 does not tell the first levels apart, in however few steps.
CROWDED_MU = 16.0


def flux2(
    steps: Steps = 20,
    *,
    width: Size = 1024,
    height: Size = 1024,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """sigma_i = e^mu t_i / (1 + (e^mu - 1) t_i) with t_i even from 1 to 1 / n, then 0   (Esser et al. 2024, eq. 23).

    mu is of the size of the picture and the number of steps, see `flux2_mu`. With denoise_mode = exact t_i runs from
    denoise to denoise / steps, and mu is that of `steps`.

    Raises:
        InputError: a picture so large that the shift brings all levels to 1.
    """
    tokens = round(width * height / 256)
    if flux2_mu(tokens, steps) > CROWDED_MU:
        problem = f"times height is {width} x {height}, a size whose shift brings all noise levels to 1"
        raise InputError("width", problem, "give a smaller picture, of 4096 x 4096 at most")

    def levels(n: int, part: float) -> list[float]:
        shift = math.exp(flux2_mu(tokens, n))
        return [shifted(t, shift) for t in times(n, part)]

    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


def flux2_mu(tokens: int, steps: int) -> float:
    """log of the shift of Flux.2, fitted to what was best   (Black Forest Labs 2025, flux2, `compute_empirical_mu`).

    tokens: one for 16 x 16 pixels. Two lines in the number of tokens were fitted, 8.73809524e-5 tokens + 1.89833333 at
    10 steps and 0.00016927 tokens + 0.45666666 at 200; mu lies on the straight line between them in the number of
    steps. Above 4300 tokens it is the line of 200 steps.
    """
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return many
    few = 8.73809524e-05 * tokens + 1.89833333
    return many + (many - few) / 190.0 * (steps - 200.0)


def ltxv(
    steps: Steps = 20,
    *,
    max_shift: Annotated[float, Param("log of the shift at 4096 tokens.", 0.0, 100.0, 0.01)] = 2.05,
    base_shift: Annotated[float, Param("log of the shift at 1024 tokens.", 0.0, 100.0, 0.01)] = 0.95,
    stretch: Annotated[
        bool, Param("The levels are stretched, so that the lowest one above 0 is terminal.", rare=True)
    ] = True,
    terminal: Annotated[float, Param("Lowest level above 0, with stretch.", 0.0, 0.99, 0.01, rare=True)] = 0.1,
    tokens: Annotated[
        int, Param("Positions of the latent: frames x height x width of its samples.", 1, 100000000, 1)
    ] = 4096,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """s_i = e^mu t_i / (1 + (e^mu - 1) t_i) with t_i even from 1 to 1 / n, stretched, then 0   (HaCohen et al. 2024).

    mu = base_shift + (max_shift - base_shift) (tokens - 1024) / (4096 - 1024),
    sigma_i = 1 - (1 - terminal) (1 - s_i) / (1 - s_last) with stretch, and s_i without.

    `steps` = 1 is (1, 0). With denoise_mode = exact t_i runs from denoise to denoise / steps, and the stretch is that
    of `steps` without denoise; where t is below 1 / steps, the line from terminal there to 0 goes on.

    Raises:
        InputError: a terminal of 0 with stretch, so two levels of 0.
    """
    if stretch and terminal == 0.0:
        cure = "give a value above 0, or turn stretch off"
        raise InputError("terminal", "is 0, so the level before the last is 0 as well", cure)
    mu = base_shift + (max_shift - base_shift) * (tokens - 1024.0) / (4096.0 - 1024.0)
    if mu > LARGEST_MU:
        problem = f"is {max_shift:g}, and for {tokens} tokens that is e^{mu:g} for the shift"
        raise InputError("max_shift", problem, "lower it, or make a smaller latent")
    shift = math.exp(mu)

    def level(t: float, last: float) -> float:
        if not stretch or t == 1.0:
            return shifted(t, shift)
        if t <= last:
            return terminal * (t / last) if last < 1.0 else t
        # 1 - shifted(t), without the digits that this loses where shifted(t) is near 1.
        rest, longest = ((1.0 - each) / (1.0 + (shift - 1.0) * each) for each in (t, last))
        return 1.0 - (1.0 - terminal) * (rest / longest)

    def levels(n: int, part: float) -> list[float]:
        whole = times(n, 1.0)
        return [level(t, whole[-1]) for t in (whole if part == 1.0 else times(n, part))]

    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


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
    denoise_mode: DenoiseMode = "tail",
    sigma_max: float = 1.0,
) -> tuple[float, ...]:
    """Even steps at high noise, then growing ones: 1 - sigma is linear, then quadratic (Polyak et al. 2024, 3.4.2).

    With m linear steps of n, threshold d and r = n - m, 1 - sigma_i is i d / m up to step m and there goes on as the
    parabola with the same value and slope that reaches 1 at step n:
    1 - sigma_i = d + (d / m) (i - m) + (1 - d - r d / m) ((i - m) / r)^2.

    `steps` = 1 is (sigma_max, 0). More linear steps than leave one quadratic step are cut down to that. With
    denoise_mode = exact i runs from n (1 - denoise) to n, in n steps as well.

    Raises:
        InputError: so few linear steps that the parabola would pass 1 before step n: r d / m > 2 (1 - d).
    """

    def levels(n: int, part: float) -> list[float]:
        m = min(linear_steps or n // 2, n - 1)
        if m and (n - m) * threshold_noise / m > 2.0 * (1.0 - threshold_noise):
            problem = f"is {m}, and {counted(n - m, 'step')} beginning as long as these would pass 0 before the end"
            fewest = math.ceil(n * threshold_noise / (2.0 - threshold_noise))
            raise InputError("linear_steps", problem, f"give at least {fewest}, or lower threshold_noise")
        rest, slope = n - m, threshold_noise / m if m else 0.0
        start = threshold_noise if m else 0.0

        def risen(i: float) -> float:
            if i <= m:
                return slope * i
            return start + slope * (i - m) + (1.0 - start - rest * slope) * ((i - m) / rest) ** 2

        return [sigma_max * (1.0 - risen(n * (1.0 - part) + part * i)) for i in range(n)]

    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)
