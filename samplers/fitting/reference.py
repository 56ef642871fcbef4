"""The reference: the model's own ODE on many levels, seen at those of the plan."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from ..path import Path
from ..plan import start
from ..solvers.exponential_multistep import dpmpp_2m
from .subject import Subject


def between(path: Path, s: float, t: float, parts: int) -> list[float]:
    """The levels from s on that cut a step into parts, even in sigma^(1/7) as Karras et al. do, without t."""
    return [(s ** (1 / 7) + i / parts * (t ** (1 / 7) - s ** (1 / 7))) ** 7 for i in range(parts)]


def fine_levels(path: Path, sigmas: Sequence[float], calls: int, sigma_min: float) -> tuple[list[float], list[int]]:
    """About `calls` levels with all of `sigmas` among them, and where each of these stands."""
    above = [sigma for sigma in sigmas if sigma > 0.0]
    ends_at_zero = sigmas[-1] == 0.0
    tail = [sigma_min] if ends_at_zero and 0.0 < sigma_min < above[-1] * 0.99 else []
    stops = [*above, *tail]
    parts = max(2, round((calls - 1) / max(len(stops) - 1, 1)))
    fine, places = list[float](), list[int]()
    for s, t in pairwise(stops):
        places.append(len(fine))
        fine += between(path, s, t, parts)
    places.append(len(fine))
    fine.append(stops[-1])
    places = places[: len(above)]
    if ends_at_zero:
        places.append(len(fine))
        fine.append(0.0)
    return fine, places


def reference(
    subject: Subject, sigmas: Sequence[float], images: slice, calls: int, spent: Callable[[int], None] | None = None
) -> tuple[list[Tensor], int]:
    """x at each of `sigmas`, by DPM++ 2M on about `calls` levels, and how many calls that were.

    It is run from one of `sigmas` to the next, so that no more is kept than what is returned; `spent` is told the calls
    of each part.
    """
    fine, places = fine_levels(subject.path, sigmas, calls, subject.sigma_min)
    plan, state = dpmpp_2m(subject.path, fine), start(subject.starts[images])
    found = [state.x]
    for before, place in pairwise(places):
        state = subject.run(plan, state, images, stop=place)
        found.append(state.x)
        if spent is not None:
            spent(place - before)
    return found, len(plan.stages)
