"""Schedules taken apart, joined, and made into other schedules. Everything here takes and gives Python floats."""

import math
import re
from collections.abc import Sequence

from ..parameters import InputError
from ..path import Path
from ..plan import Plan
from .tables import Trained

Sigmas = Sequence[float]
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# A printed tensor or list is read too.
DECORATION = re.compile(r"\btensor\b|\bdtype\s*=\s*[\w.]+|[\[\](){}]|#.*")


def split_at(sigmas: Sigmas, step: int, name: str = "step") -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The first `step` steps and the rest; the level between them belongs to both.

    Raises:
        InputError: one of the parts would have no step.
    """
    steps = len(sigmas) - 1
    if not 0 < step < steps:
        empty = "first" if step <= 0 else "second"
        problem = f"cuts at step {step} of {steps}, which leaves the {empty} part without a step"
        cure = f"cut somewhere from step 1 to step {steps - 1}" if steps > 1 else "wire a schedule of 2 steps or more"
        raise InputError(name, problem, cure)
    return tuple(sigmas[: step + 1]), tuple(sigmas[step:])


def first_not_above(sigmas: Sigmas, level: float) -> int:
    """The step from which all levels are at `level` or below."""
    return next((i for i, sigma in enumerate(sigmas) if sigma <= level), len(sigmas) - 1)


def first_below(sigmas: Sigmas, level: float) -> int:
    """The step from which all levels are below `level`."""
    return next((i for i, sigma in enumerate(sigmas) if sigma < level), len(sigmas) - 1)


def hand_over(trained: Trained, boundary: float) -> float:
    """The noise level at the part `boundary` of a model's trained time, counted from the clean end.

    Two models that share a run, each trained on its part of the time, meet there: the one for high noise takes every
    call at this level or above. On FLOW sigma is the time; else it is the trained timestep of that number.
    """
    if trained.path is Path.FLOW:
        return boundary
    return trained.table[min(int(boundary * len(trained.table)), len(trained.table) - 1)]


def step_of_calls(plan: Plan, calls: int) -> int:
    """The largest number of steps that need no more than `calls` model calls."""
    return max(step for step in range(plan.steps + 1) if plan.first_stage(step) <= calls)


def joined(high: Sigmas, low: Sigmas) -> tuple[float, ...]:
    """One schedule of two that meet: the last level of `high` is the first of `low`.

    Raises:
        InputError: they do not meet.
    """
    for name, part in (("high_sigmas", high), ("low_sigmas", low)):
        if not part:
            raise InputError(name, "is empty", "wire a schedule with at least one step")
    if high[-1] != low[0]:
        where = "after a gap" if high[-1] > low[0] else "above it"
        problem = f"begins at {low[0]:.8g}, {where}: high_sigmas ends at {high[-1]:.8g}"
        raise InputError("low_sigmas", problem, "split one schedule, or give both parts the same level there", 0)
    return (*high, *low[1:])


def reversed_sigmas(sigmas: Sigmas, lowest: float) -> tuple[float, ...]:
    """From the last level up to the first, for samplers that add noise; 0 becomes `lowest`, since few start there."""
    return tuple(sigma if sigma > 0.0 else lowest for sigma in reversed(sigmas))


def scaled(sigmas: Sigmas, factor: float) -> tuple[float, ...]:
    return tuple(sigma * factor for sigma in sigmas)


def with_first(sigmas: Sigmas, sigma: float) -> tuple[float, ...]:
    """`sigmas` with another first level.

    Raises:
        InputError: the first step would go nowhere, or the other way.
    """
    if (sigma > sigmas[1]) != (sigmas[0] > sigmas[1]) or sigma == sigmas[1]:
        side = "above" if sigmas[0] > sigmas[1] else "below"
        problem = f"is {sigma:g}, not {side} the level that the first step goes to, {sigmas[1]:g}"
        raise InputError("sigma", problem, f"give a value {side} {sigmas[1]:g}")
    return (sigma, *sigmas[1:])


def resampled(sigmas: Sigmas, steps: int) -> tuple[float, ...]:
    """`steps` steps over the same range: log sigma linear in between, the ends the same, and 0 where there was one.

    As many steps as before is the same schedule.
    """
    levels = list(sigmas[:-1] if sigmas[-1] == 0.0 else sigmas)
    ends = (0.0,) if sigmas[-1] == 0.0 else ()
    count = steps + 1 - len(ends)
    if count > 1 and len(levels) == 1:
        cure = "wire a schedule with more levels above 0"
        raise InputError("sigmas", "holds one level above 0, and there is nothing between it and 0", cure)
    places = [i * (len(levels) - 1) / (count - 1) if count > 1 else 0.0 for i in range(count)]
    return (*(_between(levels, place) for place in places), *ends)


def _between(levels: Sequence[float], place: float) -> float:
    low = min(int(place), len(levels) - 1)
    weight = place - low
    if weight == 0.0:
        return levels[low]
    return levels[low] * math.exp(weight * math.log(levels[low + 1] / levels[low]))


def parsed(text: str) -> tuple[float, ...]:
    """The numbers in `text`, separated by commas, semicolons, spaces or lines: 14.6, 1e-3, .5, +2.

    Brackets around them, as in a printed list or tensor, and whatever follows a # are passed over.

    Raises:
        InputError: a token that is no number, with its line, or fewer than two numbers.
    """
    numbers = list[float]()
    for line_number, line in enumerate(text.splitlines(), 1):
        for token in re.split(r"[\s,;]+", DECORATION.sub(" ", line)):
            if not token:
                continue
            if not NUMBER.fullmatch(token):
                problem = f"has {token!r} in line {line_number}, which is no number"
                raise InputError("text", problem, "write numbers such as 14.6, 0.5 or 1e-3, with commas between them")
            numbers.append(float(token))
    if len(numbers) < 2:
        problem = "holds no number" if not numbers else f"holds one number, {numbers[0]:g}"
        raise InputError("text", problem, "write at least two noise levels: where the first step begins and ends")
    return tuple(numbers)
