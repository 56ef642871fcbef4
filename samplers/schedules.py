"""Noise schedules: pure functions from a number of steps to steps + 1 noise levels, descending, the last 0."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from .parameters import InputError, Param

Steps = Annotated[int, Param("Number of steps, exactly.", 1, 10000, 1)]
SigmaMin = Annotated[float, Param("Lowest noise level before 0.", 0.0001, 1000.0, 0.0001)]
SigmaMax = Annotated[float, Param("Highest noise level, where the run begins.", 0.0001, 1000.0, 0.0001)]


def fractions(steps: int) -> list[float]:
    """`steps` values from 0 to 1; a single one is 0."""
    return [i / (steps - 1) if steps > 1 else 0.0 for i in range(steps)]


def check_range(sigma_min: float, sigma_max: float) -> None:
    if not 0.0 < sigma_min < sigma_max:
        problem = f"is {sigma_min:g}, not between 0 and sigma_max = {sigma_max:g}"
        raise InputError("sigma_min", problem, "give a sigma_min above 0 and below sigma_max")


def karras(
    steps: Steps = 20,
    *,
    sigma_min: SigmaMin = 0.0291675,
    sigma_max: SigmaMax = 14.614642,
    rho: Annotated[float, Param("Curvature: larger values put more steps at low noise.", 1.0, 100.0, 0.1)] = 7.0,
) -> tuple[float, ...]:
    """sigma_i = (max^(1/rho) + i / (n - 1) (min^(1/rho) - max^(1/rho)))^rho, then 0   (Karras et al. 2022, eq. 5).

    `steps` = 1 is (sigma_max, 0). The default range is Stable Diffusion 1.5's and SDXL's.
    """
    check_range(sigma_min, sigma_max)
    high, low = sigma_max ** (1.0 / rho), sigma_min ** (1.0 / rho)
    inner = [(high + u * (low - high)) ** rho for u in fractions(steps)]
    return pinned(inner, sigma_min, sigma_max)


def exponential(
    steps: Steps = 20, *, sigma_min: SigmaMin = 0.0291675, sigma_max: SigmaMax = 14.614642
) -> tuple[float, ...]:
    """sigma_i = max (min / max)^(i / (n - 1)), then 0: equal steps in log sigma   (Lu et al. 2022a, section 3.3)."""
    check_range(sigma_min, sigma_max)
    inner = [math.exp(math.log(sigma_max) + u * math.log(sigma_min / sigma_max)) for u in fractions(steps)]
    return pinned(inner, sigma_min, sigma_max)


def pinned(inner: Sequence[float], sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """`inner` with its ends exactly at the range, where rounding moved them, and 0 behind."""
    return (sigma_max, *inner[1:-1], sigma_min, 0.0) if len(inner) > 1 else (sigma_max, 0.0)


def trained_sigmas(
    *,
    beta_schedule: Annotated[
        Literal["scaled_linear", "linear"], Param("How the trained betas grow: scaled_linear is Stable Diffusion's.")
    ] = "scaled_linear",
    beta_start: Annotated[float, Param("First trained beta.", 0.000001, 0.5, 0.00001)] = 0.00085,
    beta_end: Annotated[float, Param("Last trained beta.", 0.000001, 0.999, 0.0001)] = 0.012,
    train_steps: Annotated[int, Param("Number of trained timesteps.", 2, 10000, 1)] = 1000,
) -> tuple[float, ...]:
    """sigma = sqrt((1 - abar) / abar) of each trained timestep, ascending   (Ho et al. 2020, section 2).

    abar_t is the product of 1 - beta up to t; beta runs linearly, or as the square of a line (scaled_linear), from
    beta_start to beta_end.
    """
    power = 1.0 if beta_schedule == "linear" else 0.5
    low, high = beta_start**power, beta_end**power
    abar, result = 1.0, list[float]()
    for u in fractions(train_steps):
        abar *= 1.0 - (low + u * (high - low)) ** (1.0 / power)
        result.append(math.sqrt((1.0 - abar) / abar))
    return tuple(result)


def timesteps(steps: int, train_steps: int, spacing: str = "leading", steps_offset: int = 0) -> tuple[int, ...]:
    """The trained timesteps of a run, descending   (Lin et al. 2023, table 2).

    leading: i floor(T / n) + steps_offset; linspace: n values from 0 to T - 1, rounded; trailing:
    round(T - i T / n) - 1. Halves round to even, as numpy's do.

    Raises:
        InputError: more steps than timesteps, or an offset that leaves the table.
    """
    if steps > train_steps:
        raise InputError(
            "steps", f"is {steps}, more than the {train_steps} trained timesteps", f"give at most {train_steps}"
        )
    if spacing == "leading":
        chosen = [i * (train_steps // steps) + steps_offset for i in reversed(range(steps))]
    elif spacing == "linspace":
        chosen = [round(u * (train_steps - 1)) for u in reversed(fractions(steps))]
    else:
        chosen = [round(train_steps - i * train_steps / steps) - 1 for i in range(steps)]
    if chosen[0] >= train_steps:
        problem = f"is {steps_offset}, and the first timestep would be {chosen[0]} of 0 to {train_steps - 1}"
        raise InputError("steps_offset", problem, "lower it, or take fewer steps")
    return tuple(chosen)


Spacing = Annotated[
    Literal["leading", "linspace", "trailing"],
    Param("How the timesteps are spread: leading is DDIM's and DDPM's, trailing begins at the highest noise."),
]


def timestep(
    table: Sequence[float],
    steps: Steps = 50,
    *,
    spacing: Spacing = "leading",
    steps_offset: Annotated[
        int, Param("Added to every timestep with leading spacing; Stable Diffusion uses 1.", 0, 100, 1)
    ] = 0,
) -> tuple[float, ...]:
    """The noise levels of `steps` trained timesteps, then 0: the schedule of DDPM and DDIM.

    With steps = the table's length it is DDPM's full run. `table` holds the sigma of each trained timestep, ascending;
    from `trained_sigmas` or from the model. See `timesteps` for the spacings.
    """
    return (*(table[t] for t in timesteps(steps, len(table), spacing, steps_offset)), 0.0)


def lcm_timesteps(steps: int, train_steps: int, original_inference_steps: int = 50) -> tuple[int, ...]:
    """The timesteps an LCM was distilled on, thinned to `steps`, descending   (Luo et al. 2023, section 4.3).

    The distilled ones are k i - 1, i = 1 .. original_inference_steps, k = floor(T / original_inference_steps);
    of these, counted from the top, number floor(i original_inference_steps / steps).
    """
    if original_inference_steps > train_steps:
        cure = f"give at most {train_steps}"
        raise InputError("original_inference_steps", f"is {original_inference_steps}, more than the timesteps", cure)
    if steps > original_inference_steps:
        problem = f"is {steps}, more than the {original_inference_steps} timesteps that the model was distilled on"
        raise InputError("steps", problem, "take fewer, or raise original_inference_steps")
    skip = train_steps // original_inference_steps
    return tuple(skip * (original_inference_steps - i * original_inference_steps // steps) - 1 for i in range(steps))


def lcm(
    table: Sequence[float],
    steps: Steps = 4,
    *,
    original_inference_steps: Annotated[
        int, Param("Number of timesteps that the model was distilled on.", 1, 1000, 1)
    ] = 50,
) -> tuple[float, ...]:
    """The noise levels of an LCM's timesteps, then 0; see `lcm_timesteps`."""
    return (*(table[t] for t in lcm_timesteps(steps, len(table), original_inference_steps)), 0.0)
