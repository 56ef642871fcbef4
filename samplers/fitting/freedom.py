"""What of a plan is fitted: numbers by name, and the plan that they make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ..path import Path
from .linear_form import LinearForm, begin_from, single

LEVELS = ("level", "told", "opening")
# Levels keep at least this much of the step between them, in half log-SNR.
CLOSEST = 0.02


class Number(NamedTuple):
    """One fitted number.

    kind: "level" moves the level of x before call n, "told" what the model is told at call n beside it, both in half
        log-SNR; "taken" the share of the prediction of `back` calls before in row n, at the cost of the newest;
        "sum" the sum of the row, and "carry" the factor of x in it; "opening" the logarithm of that of the first x.
    """

    kind: str
    n: int
    back: int = 0

    @property
    def restart(self) -> int:
        """The first call that sees a change of it."""
        return self.n if self.kind in LEVELS else self.n + 1

    @property
    def step(self) -> float:
        """Of the finite difference."""
        return 0.03 if self.kind in LEVELS else 0.01

    @property
    def central(self) -> bool:
        """Whether it is taken to both sides: a model may round the level that it is told."""
        return self.kind in LEVELS


@dataclass(frozen=True)
class Freedom:
    """What is free.

    history: how many earlier predictions a row may take.
    levels: whether the inner levels move.
    free: whether rows need not keep the noise level of x: their sum, the carry, and what the model is told are fitted
        too.
    opening: whether the run may begin below the first level, with a part of its noise.
    """

    history: int = 3
    levels: bool = True
    free: bool = False
    opening: bool = False

    def of_row(self, begin: LinearForm, n: int) -> list[Number]:
        """The numbers of row n. At level 0 nothing is left of x to carry."""
        found = [Number("taken", n, back) for back in range(1, min(n, self.history) + 1)]
        if self.free:
            found.append(Number("sum", n))
        if self.free and begin.carry[n] != 0.0:
            found.append(Number("carry", n))
        return found

    def numbers(self, begin: LinearForm) -> list[Number]:
        calls = begin.calls
        rows = [each for n in range(calls) for each in self.of_row(begin, n)]
        levels = [Number("level", n) for n in range(1, calls)] if self.levels else []
        told = [Number("told", n) for n in range(1, calls)] if self.free else []
        return [*rows, *levels, *told, *([Number("opening", 0)] if self.opening else [])]


Values = dict[Number, float]


def moved(path: Path, sigma: float, by: float) -> float:
    return sigma if by == 0.0 else path.sigma(path.lam(sigma) + by)


def made(begin: LinearForm, values: Values) -> LinearForm | None:
    """The solver that `begin` has on the moved levels, and what is fitted beside it; None where levels meet."""
    path, calls = begin.path, begin.calls
    levels, opening = list(begin.sigmas), math.exp(values.get(Number("opening", 0), 0.0))
    levels[0] *= opening
    for n in range(1, calls):
        levels[n] = moved(path, levels[n], values.get(Number("level", n), 0.0))
    sigmas = single(levels)
    if opening > 1.0 or not apart(path, sigmas):
        return None
    base = begin_from(path, sigmas, begin.base)
    told = [moved(path, s, values.get(Number("told", n), 0.0)) for n, s in enumerate(sigmas[:-1])]
    if max(told) > begin.sigmas[0]:
        return None
    carries, taken = list[float](), list[tuple[float, ...]]()
    for n, (s, t) in enumerate(pairwise(sigmas)):
        gain = path.gain(s, t)
        shares = [each for each in values if each.kind == "taken" and each.n == n]
        row = list(base.taken[n])
        row += [0.0] * (1 + max((each.back for each in shares), default=0) - len(row))
        for each in shares:
            row[each.back] += gain * values[each]
            row[0] -= gain * values[each]
        row[0] += gain * values.get(Number("sum", n), 0.0)
        carries.append(base.carry[n] * (1.0 + values.get(Number("carry", n), 0.0)))
        taken.append(tuple(row))
    levels = (begin.sigmas[0], *sigmas[1:])
    return LinearForm(path, levels, tuple(told), tuple(carries), tuple(taken), opening, begin.base)


def apart(path: Path, sigmas: Sequence[float]) -> bool:
    """Whether the levels fall, and none comes too near to the next."""
    if any(t >= s or t < 0.0 for s, t in pairwise(sigmas)):
        return False
    inner = [sigma for sigma in sigmas if sigma > 0.0 and not path.is_noise(sigma)]
    return all(path.lam(t) - path.lam(s) > CLOSEST for s, t in pairwise(inner)) and math.isfinite(sigmas[0])
