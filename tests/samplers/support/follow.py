"""A plan followed on paper: every register as a row of coefficients, no tensors, none of the machine's own code."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from stepwise.samplers import Noise, Path, Plan

CONSTANT, START, FIRST_DRAW = 0, 1, 2
Coefficients = np.ndarray


@dataclass(frozen=True)
class Followed:
    """What x is made of when the model sees it, call by call, and at the end.

    A row of coefficients is (constant, noise in the starting x, then every addressed draw, in order of first use).
    """

    calls: list[Coefficients]
    end: Coefficients
    draws: list[Noise]


def unit(plan: Plan, index: int) -> Coefficients:
    return (np.arange(FIRST_DRAW + len(draws_of(plan))) == index).astype(float)


def draws_of(plan: Plan) -> list[Noise]:
    """The distinct draws of a plan, in order of first use."""
    rows = [row for stage in plan.stages for row in (*stage.opening, *stage.rows)]
    return list(dict.fromkeys(operand for row in rows for operand, _ in row.terms if isinstance(operand, Noise)))


def follow(plan: Plan, start: Coefficients, denoised: Callable[[Coefficients, float], Coefficients]) -> Followed:
    """Applies the rows of `plan` to coefficients; `denoised` is the model: affine, so coefficients to coefficients."""
    draws = draws_of(plan)
    column = dict(zip(draws, np.eye(FIRST_DRAW + len(draws))[FIRST_DRAW:], strict=True))
    held, calls = {"x": start}, []
    for stage in plan.stages:
        held = after(held, stage.opening, column)
        calls.append(held["x"])
        held = after(held | {"denoised": denoised(held["x"], stage.sigma)}, stage.rows, column)
        held = {name: held[name] for name in stage.keeps}
    return Followed(calls, held["x"], draws)


def after(held, rows, column):
    held = dict(held)
    for row in rows:
        held[row.target] = sum(
            value * (held[operand] if isinstance(operand, str) else column[operand]) for operand, value in row.terms
        )
    return held


def follow_constant(plan: Plan) -> Followed:
    """With denoised = c always, from x = alpha c + sigma e: the constant is c."""
    path, s = plan.path, plan.sigmas[0]
    c = unit(plan, CONSTANT)
    return follow(plan, path.alpha(s) * c + s * unit(plan, START), lambda x, sigma: c)


def follow_gaussian(plan: Plan, mean: float, variance: float, consistent: bool = False) -> Followed:
    """With data N(mean, variance) and its exact denoiser, from x of the exact law at the first noise level.

    E[x0 | x] = mean + alpha variance / (alpha^2 variance + sigma^2) (x - alpha mean). `consistent` models jump to the
    end of the probability-flow ODE instead, where x keeps its place among the quantiles of its own law.
    """
    path, one = plan.path, unit(plan, CONSTANT)

    def spread(sigma: float) -> float:
        return law(path, sigma, variance)

    def denoised(x: Coefficients, sigma: float) -> Coefficients:
        slope = (variance / spread(sigma)) ** 0.5 if consistent else path.alpha(sigma) * variance / spread(sigma)
        return mean * one + slope * (x - path.alpha(sigma) * mean * one)

    s = plan.sigmas[0]
    return follow(plan, path.alpha(s) * mean * one + spread(s) ** 0.5 * unit(plan, START), denoised)


def law(path: Path, sigma: float, variance: float) -> float:
    """The variance of x = alpha x0 + sigma e for data of that variance."""
    return path.alpha(sigma) ** 2 * variance + sigma**2


def noise_variance(x: Coefficients) -> float:
    return float(np.square(x[START:]).sum())
