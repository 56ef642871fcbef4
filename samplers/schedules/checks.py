"""What a schedule must be before a solver may see it, and what else is worth knowing about it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..parameters import InputError
from ..path import Path
from ..plan import ascends
from .tables import Trained

# A schedule's start is the model's own where it differs by no more than roundings of tables.
ROUNDING = 1e-4
FROM_THE_MODEL = "wire the model into the schedule node, so that it takes the range from it"
# For a model on this path, whose schedule is made for the other.
INSTEAD = {
    "VE": "take one of the schedules Karras, Exponential and Timestep instead",
    "FLOW": "take the schedule Flow instead",
}
FOR_A_PICTURE = "this is right for beginning from a picture, not for an empty latent"


@dataclass(frozen=True)
class Notice:
    """Something about a schedule: at which index (None: all of it), what, and the cure. `fatal` ones forbid a run."""

    index: int | None
    problem: str
    cure: str
    fatal: bool = True

    def __str__(self) -> str:
        place = "sigmas" if self.index is None else f"sigmas[{self.index}]"
        return f"{place} {self.problem}. {self.cure[:1].upper()}{self.cure[1:]}."


def check_sigmas(
    path: Path, sigmas: Sequence[float], name: str = "sigmas", fewest: int = 2, upwards: bool = False
) -> None:
    """Raises InputError unless `sigmas` are at least `fewest` finite noise levels, strictly descending, or ascending
    where that is allowed, none below 0 and none above the path's largest."""
    for found in faults(path, sigmas, fewest, upwards):
        raise InputError(name, found.problem, found.cure, found.index)


def faults(path: Path, sigmas: Sequence[float], fewest: int = 2, upwards: bool = False) -> Iterator[Notice]:
    """What forbids a run, in the order of the schedule."""
    up = ascends(sigmas)
    if up and not upwards:
        problem = f"go up, from {sigmas[0]:g} to {sigmas[-1]:g}"
        yield Notice(None, problem, "edit a schedule while it descends, and turn it round last, with Reverse Sigmas")
    if len(sigmas) < fewest:
        held = "is empty" if not sigmas else f"holds one value, {sigmas[0]:g}"
        yield Notice(None, held, "one step needs two values: wire a schedule node with at least 1 step")
    for index, sigma in enumerate(sigmas):
        if not math.isfinite(sigma):
            yield Notice(index, f"is {sigma}", "remove the node that made it: noise levels are finite numbers")
        elif sigma < 0.0:
            yield Notice(index, f"is {sigma:g}, below 0", "noise levels run down to 0 and no further")
        elif index and (sigma <= sigmas[index - 1] if up else sigma >= sigmas[index - 1]):
            where, goes = ("above", "ascends") if up else ("below", "descends")
            problem, cure = f"is {sigma:g}, not {where} the value before it, {sigmas[index - 1]:g}", ""
            if sigma != sigmas[index - 1]:
                cure = "; what goes up on the way, with fresh noise, is the sampler Restart"
            yield Notice(index, problem, f"wire a schedule that {goes} at every step{cure}")
        elif sigma > path.sigma_max:
            problem, cure = f"is {sigma:g}, and a flow model begins at 1", FROM_THE_MODEL
            if like_timesteps(sigma) and not up and any(other > path.sigma_max for other in sigmas[1:]):
                problem, cure = f"{problem}: these look like timesteps", "divide them by 1000"
            yield Notice(index, problem, cure)


def remarks(sigmas: Sequence[float], trained: Trained | None = None, rounding: float = ROUNDING) -> Iterator[Notice]:
    """What a run on sound `sigmas` should know: how they fit the model's range, and where they end. A start above the
    model's range is fatal."""
    if len(sigmas) < 2:
        noised = f", noised to {sigmas[0]:g}" if any(sigmas) else " as it is"
        cure = "this is right for a part of no steps; else wire a schedule node with at least 1 step"
        yield Notice(None, f"has no step, so no model is called and the latent is left{noised}", cure, fatal=False)
        return
    if ascends(sigmas):
        problem = f"go up, so a run takes a picture from noise level {sigmas[0]:g} back to its noise"
        yield Notice(None, problem, "this is right for unsampling, with a sampler that adds no noise", fatal=False)
        if trained is not None:
            last = len(sigmas) - 1
            yield from (each for each in beginning(sigmas, trained.sigma_max, last, rounding) if each.fatal)
        return
    if trained is not None:
        yield from beginning(sigmas, trained.sigma_max, rounding=rounding)
    if sigmas[-1] > 0.0:
        problem = f"is {sigmas[-1]:g}, so the run ends with noise in the picture"
        cure = "this is right for a part of a run; else end with a 0 (last_sigma = zero in a schedule node)"
        yield Notice(len(sigmas) - 1, problem, cure, fatal=False)


def beginning(
    sigmas: Sequence[float], sigma_max: float, index: int = 0, rounding: float = ROUNDING
) -> Iterator[Notice]:
    """How a run that begins at `sigmas[index]` fits the highest noise level of its model.

    rounding: by how much, of itself, a level may be off in the number format that it came in.
    """
    first = sigmas[index]
    if first > sigma_max * (1.0 + rounding):
        problem = f"is {first:g}, above the highest noise level that the model was trained on, {sigma_max:g}"
        cure = FROM_THE_MODEL if rounding <= ROUNDING else f"leave SIGMAS in float32, and {FROM_THE_MODEL}"
        if like_timesteps(first):
            problem, cure = f"{problem}: these look like timesteps", "take their noise levels from Timestep Schedule"
        yield Notice(index, problem, cure)
    if first < 0.5 * sigma_max:
        problem = f"is {first:g}, far below the model's highest noise level, {sigma_max:g}"
        yield Notice(index, problem, FOR_A_PICTURE, fatal=False)


def like_timesteps(first: float) -> bool:
    """Whether a schedule that begins too high begins where timesteps do: below 1000, or there."""
    return 100.0 < first <= 1000.0
