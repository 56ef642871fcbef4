"""Schedules over a range of noise levels, from sigma_max to sigma_min."""

import math
from collections.abc import Callable
from typing import Annotated

from ..parameters import InputError, Param
from ..path import VE, Path
from .ends import (
    Denoise,
    DenoiseMode,
    LastSigma,
    SigmaMax,
    SigmaMin,
    Steps,
    check_range,
    finished_part,
    fractions,
    pinned,
    sampled,
)

# Stable Diffusion 1.5's and SDXL's range.
SIGMA_MIN, SIGMA_MAX = 0.0291675, 14.614642
# e^(177 / 2) is the last noise level of this kind below 2^128, where float32 ends.
LARGEST = 177.0


def karras(
    steps: Steps = 20,
    *,
    sigma_min: SigmaMin = SIGMA_MIN,
    sigma_max: SigmaMax = SIGMA_MAX,
    rho: Annotated[float, Param("Curvature: larger values put more steps at low noise.", 1.0, 100.0, 0.1)] = 7.0,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """sigma_i = (max^(1/rho) + i / (n - 1) (min^(1/rho) - max^(1/rho)))^rho, then 0   (Karras et al. 2022, eq. 5).

    `steps` = 1 is (sigma_max, 0). The default range is Stable Diffusion 1.5's and SDXL's.
    """
    check_range(sigma_min, sigma_max)
    high, low = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)

    def level(u: float) -> float:
        return (high + u * (low - high)) ** rho

    levels = sampled(pinned(level, sigma_min, sigma_max))
    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


def exponential(
    steps: Steps = 20,
    *,
    sigma_min: SigmaMin = SIGMA_MIN,
    sigma_max: SigmaMax = SIGMA_MAX,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """sigma_i = max (min / max)^(i / (n - 1)), then 0: equal steps in log sigma   (Lu et al. 2022a, section 3.3).

    Where alpha is 1 these are equal steps in log-SNR, the spacing that others call "lu".
    """
    return polyexponential(
        steps,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        rho=1.0,
        denoise=denoise,
        last_sigma=last_sigma,
        denoise_mode=denoise_mode,
    )


def polyexponential(
    steps: Steps = 20,
    *,
    sigma_min: SigmaMin = SIGMA_MIN,
    sigma_max: SigmaMax = SIGMA_MAX,
    rho: Annotated[
        float, Param("Exponent in log sigma: above 1 more steps at low noise, below 1 at high.", 0.1, 10.0, 0.1)
    ] = 1.0,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """sigma_i = min (max / min)^(u^rho) with u = 1 - i / (n - 1), then 0   (k-diffusion).

    rho = 1 is the exponential schedule.
    """
    check_range(sigma_min, sigma_max)
    low, width = math.log(sigma_min), math.log(sigma_max / sigma_min)

    def level(u: float) -> float:
        return math.exp(low + width * (1.0 - u) ** rho)

    levels = sampled(pinned(level, sigma_min, sigma_max))
    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


def laplace(
    steps: Steps = 20,
    *,
    sigma_min: SigmaMin = SIGMA_MIN,
    sigma_max: SigmaMax = SIGMA_MAX,
    mu: Annotated[float, Param("Centre: the log of the noise level where steps are closest.", -10.0, 10.0, 0.1)] = 0.0,
    beta: Annotated[
        float, Param("Width around the centre, in log sigma: smaller values gather the steps there.", 0.05, 10.0, 0.05)
    ] = 0.5,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
    path: Path = VE,
) -> tuple[float, ...]:
    """Noise levels at equal quantiles of a Laplace distribution of log-SNR, then 0   (Hang et al. 2024, table 1).

    With l = log(sigma / alpha), minus half the log-SNR, and the tail of the distribution above l being
    q(l) = exp(-(l - mu) / beta) / 2 for l >= mu and 1 - exp((l - mu) / beta) / 2 below,
    q_i runs in equal steps from q(l_max) to q(l_min).

    The distribution is cut to the model's range, which is met exactly. Without that cut the first and last levels lie
    at infinity, and clamping them to the range, as is done elsewhere, repeats levels.
    """
    check_range(sigma_min, sigma_max)
    above, below = _tails(-path.lam(sigma_max), mu, beta), _tails(-path.lam(sigma_min), mu, beta)

    def level(u: float) -> float:
        # Both tails are sums of positive numbers, so neither loses digits where it is small.
        upper = above[0] + u * (below[0] - above[0]) if above[0] < 0.5 else 1.0
        lower = below[1] + (1.0 - u) * (above[1] - below[1])
        offset = -math.log(2.0 * upper) if upper < 0.5 else math.log(2.0 * lower)
        return path.sigma(-(mu + beta * offset))

    levels = sampled(pinned(level, sigma_min, sigma_max))
    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


def _tails(place: float, mu: float, beta: float) -> tuple[float, float]:
    """The mass of the Laplace distribution above and below `place`, each to full relative precision."""
    near = 0.5 * math.exp(-abs(place - mu) / beta)
    return (near, 1.0 - near) if place >= mu else (1.0 - near, near)


def kl_optimal(
    steps: Steps = 20,
    *,
    sigma_min: SigmaMin = SIGMA_MIN,
    sigma_max: SigmaMax = SIGMA_MAX,
    data_std: Annotated[
        float,
        Param(
            "Standard deviation of the data that it is optimal for; latents have about 1.", 0.01, 100.0, 0.01, rare=True
        ),
    ] = 1.0,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """sigma_i = c tan(u atan(min / c) + (1 - u) atan(max / c)), then 0   (Sabour et al. 2024, theorem 3.1).

    With u = i / (n - 1) and c = data_std: of all schedules from max to min it brings Euler steps nearest, in the
    Kullback-Leibler divergence, to the law at min for Gaussian data of that deviation. `steps` = 1 is (sigma_max, 0).
    """
    check_range(sigma_min, sigma_max)
    high, low = math.atan(sigma_max / data_std), math.atan(sigma_min / data_std)

    def level(u: float) -> float:
        return data_std * math.tan(high + u * (low - high))

    levels = sampled(pinned(level, sigma_min, sigma_max))
    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


def vp(
    steps: Steps = 20,
    *,
    beta_d: Annotated[float, Param("Growth of the noise rate over the run.", 0.1, 1000.0, 0.1)] = 19.9,
    beta_min: Annotated[float, Param("Noise rate at its beginning, the clean end.", 0.0, 1000.0, 0.01)] = 0.1,
    eps_s: Annotated[
        float, Param("Time of the lowest level, of a run from 1 to 0.", 0.00001, 0.5, 0.0001, rare=True)
    ] = 0.001,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> tuple[float, ...]:
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1), then 0   (Karras et al. 2022, table 1).

    t is even from 1 to eps_s: the schedule of continuous variance-preserving diffusion (Song et al. 2021, eq. 32). With
    a range given, t runs from sigma(t) = sigma_max to sigma(t) = sigma_min instead.
    """

    def time(sigma: float) -> float:
        root = math.sqrt(beta_min**2 + 2.0 * beta_d * math.log1p(sigma**2))
        return 2.0 * math.log1p(sigma**2) / (root + beta_min)

    def level_at(t: float) -> float:
        return math.sqrt(math.expm1(beta_d * t**2 / 2.0 + beta_min * t))

    if sigma_min is None or sigma_max is None:
        first, last = 1.0, eps_s
        if (exponent := beta_d / 2.0 + beta_min) > LARGEST:
            problem = f"is {beta_d:g}, and the first noise level, e^{exponent / 2.0:g}, is more than float32 holds"
            cure = f"give at most {2.0 * (LARGEST - beta_min):g}" if beta_min < LARGEST else "lower it and beta_min"
            raise InputError("beta_d", problem, cure)
        sigma_min, sigma_max = level_at(eps_s), level_at(1.0)
    else:
        check_range(sigma_min, sigma_max)
        first, last = time(sigma_max), time(sigma_min)

    def level(u: float) -> float:
        return level_at(first + u * (last - first))

    levels = sampled(pinned(level, sigma_min, sigma_max))
    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)


def falling_line(u: float) -> float:
    return 1.0 - u


def curve(
    steps: Steps = 20,
    *,
    sigma_min: SigmaMin = SIGMA_MIN,
    sigma_max: SigmaMax = SIGMA_MAX,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
    shape: Callable[[float], float] = falling_line,
) -> tuple[float, ...]:
    """sigma_i = min (max / min)^y(i / (n - 1)), then 0, for a drawn curve y: log sigma over the step.

    y = 1 is sigma_max and y = 0 is sigma_min; a straight line from (0, 1) to (1, 0) is the exponential schedule.

    Raises:
        InputError: the curve leaves 0 to 1, or does not fall everywhere.
    """
    check_range(sigma_min, sigma_max)
    low, width = math.log(sigma_min), math.log(sigma_max / sigma_min)

    def levels(n: int, part: float) -> list[float]:
        heights = [shape(u) for u in fractions(n, 1.0 - part)]
        for index, y in enumerate(heights):
            if not -1e-9 <= y <= 1.0 + 1e-9:
                raise InputError("curve", f"is {y:.4g} at step {index + 1} of {n}", "keep it between 0 and 1")
            if index and y >= heights[index - 1]:
                problem = f"does not fall between step {index} and step {index + 1} of {n}"
                raise InputError("curve", problem, "draw it downwards everywhere, from left to right")
        return [math.exp(low + width * y) for y in heights]

    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)
