"""Schedules that choose from a table: the trained timesteps of a model, or published noise levels."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from ..parameters import InputError, Param, counted
from ..path import Path
from .ends import Denoise, DenoiseMode, LastSigma, Steps, finished, finished_part, fractions


@dataclass(frozen=True)
class Trained:
    """The noise levels of a model, ascending, one for each trained timestep, and the path they belong to.

    `shift` is the one of a flow model's time, sigma = shift u / (1 + (shift - 1) u).
    """

    path: Path
    table: tuple[float, ...]
    shift: float = 1.0

    @property
    def sigma_min(self) -> float:
        return self.table[0]

    @property
    def sigma_max(self) -> float:
        return self.table[-1]


# Stands for infinite noise at the last timestep of a zero-terminal-SNR model, as ComfyUI has it: sigma = 4518.8.
LAST_ABAR = 4.8973451890853435e-08


def trained_sigmas(
    *,
    beta_schedule: Annotated[
        Literal["scaled_linear", "linear"],
        Param("How the trained betas grow: scaled_linear is Stable Diffusion's.", rare=True),
    ] = "scaled_linear",
    beta_start: Annotated[float, Param("First trained beta.", 0.000001, 0.5, 0.00001, rare=True)] = 0.00085,
    beta_end: Annotated[float, Param("Last trained beta.", 0.000001, 0.999, 0.0001, rare=True)] = 0.012,
    train_steps: Annotated[int, Param("Number of trained timesteps.", 2, 10000, 1, rare=True)] = 1000,
    zero_terminal_snr: Annotated[
        bool,
        Param(
            "The last trained timestep is pure noise, for models trained so; its sigma is 4518.8 for infinity.",
            rare=True,
        ),
    ] = False,
) -> tuple[float, ...]:
    """sigma = sqrt((1 - abar) / abar) of each trained timestep, ascending   (Ho et al. 2020, section 2).

    abar_t is the product of 1 - beta up to t; beta runs linearly, or as the square of a line (scaled_linear), from
    beta_start to beta_end. With zero_terminal_snr, sqrt(abar) is moved and scaled so that its last value is 0 and its
    first stays (Lin et al. 2023, algorithm 1).
    """
    power = 1.0 if beta_schedule == "linear" else 0.5
    low, high = beta_start**power, beta_end**power
    abar, abars = 1.0, list[float]()
    for u in fractions(train_steps):
        abar *= 1.0 - (low + u * (high - low)) ** (1.0 / power)
        abars.append(abar)
    if zero_terminal_snr:
        first, last = math.sqrt(abars[0]), math.sqrt(abars[-1])
        abars = [((math.sqrt(value) - last) * first / (first - last)) ** 2 for value in abars[:-1]]
        abars.append(LAST_ABAR)
    return tuple(math.sqrt((1.0 - value) / value) for value in abars)


def timesteps(steps: int, train_steps: int, spacing: str = "leading", steps_offset: int = 0) -> tuple[int, ...]:
    """The trained timesteps of a run, descending   (Lin et al. 2023, table 2).

    leading: i floor(T / n) + steps_offset; linspace: n values from 0 to T - 1, rounded; trailing:
    round(T - i T / n) - 1; simple: the same, rounded up, as ComfyUI has it. Halves round to even, as numpy's do.

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
    elif spacing == "trailing":
        chosen = [round(train_steps - i * train_steps / steps) - 1 for i in range(steps)]
    else:
        chosen = [train_steps - 1 - i * train_steps // steps for i in range(steps)]
    if chosen[0] >= train_steps:
        problem = f"is {steps_offset}, and the first timestep would be {chosen[0]} of 0 to {train_steps - 1}"
        raise InputError("steps_offset", problem, "lower it, or take fewer steps")
    return tuple(chosen)


Spacing = Annotated[
    Literal["leading", "linspace", "trailing", "simple"],
    Param(
        "How the timesteps are spread: leading is DDIM's and DDPM's, trailing begins at the highest noise, simple is "
        "trailing as ComfyUI rounds it."
    ),
]
Interpolation = Annotated[
    Literal["none", "linear", "log_linear"],
    Param(
        "With linspace and trailing: timesteps are rounded to trained ones, or lie between them in sigma or its log.",
        rare=True,
    ),
]


def timestep(
    table: Sequence[float],
    steps: Steps = 50,
    *,
    spacing: Spacing = "leading",
    steps_offset: Annotated[
        int,
        Param(
            "Added to every timestep with leading spacing; Stable Diffusion uses 1.",
            0,
            100,
            1,
            rare=True,
            only=("spacing", "leading"),
        ),
    ] = 0,
    interpolation: Interpolation = "none",
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """The noise levels of `steps` trained timesteps, then 0: the schedule of DDPM and DDIM.

    With steps = the table's length it is DDPM's full run. `table` holds the sigma of each trained timestep, ascending;
    from `trained_sigmas` or from the model. See `timesteps` for the spacings. There are at most as many steps as
    table's length times denoise; interpolated ones may be more.

    With denoise_mode = exact timesteps are not rounded: they run evenly from d (T - 1) to 0 with linspace, from
    steps_offset + d (T - 1 - steps_offset) to steps_offset with leading, and from d T - 1 to d T / n - 1, or 0, with
    trailing and simple, where d is denoise. Between trained timesteps log sigma is linear, or sigma with linear.
    """
    size = len(table)
    between = interpolation != "none" and spacing in ("linspace", "trailing")

    def part_of_it(n: int, part: float) -> Sequence[float]:
        first, last = part * (size - 1), 0.0
        if spacing == "leading":
            if steps_offset >= size:
                raise InputError("steps_offset", f"is {steps_offset}, of timesteps 0 to {size - 1}", "lower it")
            first, last = steps_offset + part * (size - 1 - steps_offset), float(steps_offset)
        elif spacing != "linspace":
            first, last = part * size - 1.0, max(part * size / n - 1.0, 0.0)
        return [first + u * (last - first) for u in fractions(n)]

    def place(n: int) -> Sequence[float]:
        if not between:
            return timesteps(n, size, spacing, steps_offset)
        if spacing == "linspace":
            return [u * (size - 1) for u in reversed(fractions(n))]
        return [size - 1 - i * size / n for i in range(n)]

    def level(t: float) -> float:
        return between_timesteps(table, t, interpolation)

    if denoise_mode == "exact":
        return finished_part(
            lambda n, part: [level(t) for t in part_of_it(n, part)], steps, denoise, last_sigma, denoise_mode
        )
    largest = None if between else size
    return finished(lambda n: [level(t) for t in place(n)], steps, denoise, last_sigma, largest)


def between_timesteps(table: Sequence[float], t: float, interpolation: str = "log_linear") -> float:
    """The level of the timestep t, which may lie between two trained ones; below 0 it is that of 0."""
    t = max(t, 0.0)
    low, weight = int(t), t - int(t)
    if weight == 0.0:
        return table[low]
    if interpolation == "linear":
        return table[low] + weight * (table[low + 1] - table[low])
    return math.exp(math.log(table[low]) + weight * math.log(table[low + 1] / table[low]))


def lcm_timesteps(
    steps: int, train_steps: int, original_inference_steps: int = 50, strength: float = 1.0
) -> tuple[int, ...]:
    """The timesteps an LCM was distilled on, thinned to `steps`, descending   (Luo et al. 2023, section 4.3).

    The distilled ones are k i - 1, i = 1 .. m, k = floor(T / original_inference_steps), of which only the first
    m = floor(original_inference_steps strength) are run; of these, counted from the top, number floor(i m / steps).
    """
    if original_inference_steps > train_steps:
        cure = f"give at most {train_steps}"
        raise InputError("original_inference_steps", f"is {original_inference_steps}, more than the timesteps", cure)
    distilled = lcm_count(original_inference_steps, strength)
    if steps > distilled:
        problem = f"is {steps}, more than the {distilled} timesteps that the model was distilled on"
        raise InputError("steps", problem, "take fewer, or raise original_inference_steps")
    skip = train_steps // original_inference_steps
    return tuple(skip * (distilled - i * distilled // steps) - 1 for i in range(steps))


def lcm_count(original_inference_steps: int, strength: float) -> int:
    """floor(original_inference_steps strength), where a product that is a whole number on paper is one."""
    return math.floor(original_inference_steps * strength * (1.0 + 1e-12))


def lcm(
    table: Sequence[float],
    steps: Steps = 4,
    *,
    original_inference_steps: Annotated[
        int, Param("Number of timesteps that the model was distilled on.", 1, 1000, 1)
    ] = 50,
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
) -> tuple[float, ...]:
    """The noise levels of an LCM's timesteps, then 0; see `lcm_timesteps`.

    `denoise` is its strength: the part of the distilled timesteps that is run, of which `steps` are taken. There are at
    most original_inference_steps times denoise.
    """

    def levels(n: int) -> list[float]:
        return [table[t] for t in lcm_timesteps(n, len(table), original_inference_steps, denoise)]

    known = original_inference_steps <= len(table)
    largest = lcm_count(original_inference_steps, denoise) if known else None
    if largest == 0:
        problem = f"is {denoise:g}, which leaves 0 of the {original_inference_steps} distilled timesteps"
        raise InputError(
            "denoise", problem, f"give at least {steps / original_inference_steps:g} for {counted(steps, 'step')}"
        )
    return finished(levels, steps, 1.0, last_sigma, largest)


def beta(
    table: Sequence[float],
    steps: Steps = 20,
    *,
    alpha: Annotated[
        float, Param("Shape at the low noise end: smaller values put more steps there.", 0.05, 50.0, 0.05)
    ] = 0.6,
    beta: Annotated[
        float, Param("Shape at the high noise end: smaller values put more steps there.", 0.05, 50.0, 0.05)
    ] = 0.6,
    over: Annotated[
        Literal["timesteps", "sigmas"],
        Param(
            "What is spread: trained timesteps, as in the paper and ComfyUI, or noise levels, as in diffusers.",
            rare=True,
        ),
    ] = "timesteps",
    denoise: Denoise = 1.0,
    last_sigma: LastSigma = "zero",
    denoise_mode: DenoiseMode = "tail",
) -> tuple[float, ...]:
    """Steps at equal quantiles of a Beta distribution, dense at both ends, then 0   (Lee et al. 2024).

    With B the quantile function of Beta(alpha, beta), timesteps: t_i = round((T - 1) B(1 - i / n)); sigmas:
    sigma_i = min + (max - min) B(1 - i / (n - 1)). There are only as many steps over timesteps as these stay distinct,
    138 of 1000 timesteps with alpha = beta = 0.6.

    With denoise_mode = exact the argument of B is times denoise, and timesteps are not rounded: log sigma is linear
    between them.
    """
    from scipy.special import betaincinv  # pyright: ignore[reportMissingTypeStubs]

    def quantiles(n: int, of: int, part: float = 1.0) -> list[float]:
        return [float(value) for value in betaincinv(alpha, beta, [part * (1.0 - i / of) for i in range(n)])]

    def indices(n: int) -> list[int]:
        return [round((len(table) - 1) * value) for value in quantiles(n, n)]

    def levels(n: int, part: float) -> list[float]:
        if over == "timesteps":
            return [between_timesteps(table, (len(table) - 1) * value) for value in quantiles(n, n, part)]
        low, high = table[0], table[-1]
        return [low + (high - low) * value for value in quantiles(n, max(n - 1, 1), part)]

    if over == "timesteps" and denoise_mode == "tail":
        sizes = range(1, len(table) + 1)
        largest = bisect_left(sizes, True, key=lambda n: len(set(indices(n))) < n)
        return finished(lambda n: [table[t] for t in indices(n)], steps, denoise, last_sigma, largest)
    return finished_part(levels, steps, denoise, last_sigma, denoise_mode)
