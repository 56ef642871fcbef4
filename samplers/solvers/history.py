"""What multistep solvers remember, how they begin without it, and how they end."""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Literal

from ..parameters import Param
from ..path import Path
from ..plan import Row, Stage, row

WarmUp = Annotated[
    Literal["singlestep", "multistep"],
    Param(
        "How the first steps are made, before there is a history. singlestep keeps the order and costs extra model "
        "calls there; multistep begins with order 1 and costs none.",
        rare=True,
    ),
]
FinalOrder = Annotated[
    Literal["falling", "full", "first"],
    Param(
        "Order of the last steps of a schedule that ends at 0: falling lowers it step by step, "
        "full keeps it up to the step to 0, first makes the last step before 0 one of order 1.",
        rare=True,
    ),
]


def final_limit(final_order: str, sigmas: Sequence[float], step: int) -> int:
    """The highest order allowed at `step`. The step to 0 itself is always of order 1: there h is infinite."""
    left = len(sigmas) - 1 - step
    if sigmas[-1] > 0.0:
        return 9
    if left == 1:
        return 1
    return {"falling": left, "full": 9, "first": 1 if left == 2 else 9}[final_order]


def opening_order(warm_up: str, order: int, known: int) -> int:
    """The singlestep order that a step needs when `known` earlier predictions can be used, 0 for a multistep step.

    A method of order p keeps it when its first p - 2 steps have order p - 1: their errors are not summed over the run.
    """
    return order - 1 if warm_up == "singlestep" and known < order - 2 else 0


def finite_steps(path: Path, sigmas: Sequence[float], step: int) -> int:
    """How many predictions before `step` lie at a finite log-SNR: one less from alpha = 0."""
    return max(step - 1, 0) if path.alpha(sigmas[0]) == 0.0 else step


@cache
def history(length: int, name: str = "previous") -> tuple[Row, ...]:
    """Shifts the history by one: the newest prediction becomes `previous1`. Aliases, which cost nothing."""
    names = [f"{name}{i}" for i in range(1, length + 1)]
    rows = [row(names[i], {names[i - 1]: 1.0}) for i in range(length - 1, 0, -1)]
    return (*rows, row(names[0], {"denoised": 1.0})) if length else ()


def known_history(step: int, length: int) -> tuple[Row, ...]:
    """The history rows after `step` steps before this one: no more than there is to remember."""
    return history(min(step + 1, length))


def opened(stages: list[Stage], rows: tuple[Row, ...]) -> list[Stage]:
    """A singlestep step that also puts its first prediction into the history."""
    first, *others = stages
    return [Stage(first.sigma, (*first.rows, *rows), first.step, first.opening), *others]
