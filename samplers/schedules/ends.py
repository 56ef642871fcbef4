"""What all schedules share: how many levels there are, which part is run, and how it ends."""

import math
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from ..parameters import InputError, Param, counted

Steps = Annotated[int, Param("Number of steps, exactly.", 1, 10000, 1)]
SigmaMin = Annotated[float, Param("Lowest noise level before 0.", 0.0001, 20000.0, 0.0001)]
SigmaMax = Annotated[float, Param("Highest noise level, where the run begins.", 0.0001, 20000.0, 0.0001)]
Denoise = Annotated[
    float,
    Param("Below 1: the last steps of a schedule of steps / denoise steps, to begin from a picture.", 0.01, 1.0, 0.01),
]
LastSigma = Annotated[
    Literal["zero", "sigma_min", "drop_penultimate"],
    Param(
        "The end: at 0; at the lowest level, without the step to 0; or at 0, the level before it left out.", rare=True
    ),
]
DenoiseMode = Annotated[
    Literal["tail", "exact"],
    Param(
        "What denoise means. tail: the last steps of a longer schedule, as in ComfyUI, so the run begins at one of its "
        "levels. exact: the run begins at the very level that denoise names.",
        rare=True,
    ),
]
Levels = Callable[[int], Sequence[float]]
# As many levels of a part of the schedule, counted from its end: 1 is the whole.
PartLevels = Callable[[int, float], Sequence[float]]


def fractions(count: int, begin: float = 0.0) -> list[float]:
    """`count` values from `begin` to 1; a single one is `begin`."""
    inner = [begin + i / (count - 1) * (1.0 - begin) for i in range(1, count - 1)]
    return [begin, *inner, 1.0][:count] if count > 1 else [begin]


def finished(
    levels: Levels, steps: int, denoise: float = 1.0, last_sigma: str = "zero", largest: int | None = None
) -> tuple[float, ...]:
    """A schedule of exactly `steps` steps from `levels`, which gives n noise levels above 0, descending.

    With N = floor(steps / denoise), of which the last `steps` are kept:
    zero: N levels, then 0; sigma_min: N + 1 levels and no 0; drop_penultimate: N + 1 levels, the last of them replaced
    by 0.

    Args:
        largest: how many levels there are at most, where `levels` takes them from a table.

    Raises:
        InputError: more steps than levels, or two levels that are one number in float32.
    """
    extra = 0 if last_sigma == "zero" else 1
    total = whole(steps, denoise)
    if largest is not None and total + extra > largest:
        most = max((n for n in range(largest + 1) if whole(n, denoise) + extra <= largest), default=0)
        are = "is" if largest == 1 else "are"
        problem = f"is {steps}, and there {are} {counted(largest, 'noise level')} to choose from"
        cures = [f"give at most {most}"] if most > 0 else ["set last_sigma to zero"] if extra else []
        raise InputError("steps", problem, ", or ".join([*cures, *(["raise denoise"] if denoise < 1.0 else [])]))
    return ended(levels(total + extra), steps, last_sigma)


def finished_part(
    levels: PartLevels, steps: int, denoise: float = 1.0, last_sigma: str = "zero", denoise_mode: str = "tail"
) -> tuple[float, ...]:
    """A schedule of exactly `steps` steps of a function of the fraction of the run, in either mode of denoise.

    tail: as `finished` makes it of the whole. exact: the levels of the function from its fraction 1 - denoise on, as
    many as `last_sigma` wants for `steps` steps. So the first level is the function at 1 - denoise whatever the number
    of steps, and rises with denoise.

    Args:
        levels: the count of levels above 0 and the part that they are spread over, its highest level first; the whole,
            1, is the schedule of that many steps.

    Raises:
        InputError: two levels that are one number in float32.
    """
    if denoise_mode == "tail":
        return finished(lambda n: levels(n, 1.0), steps, denoise, last_sigma)
    return ended(levels(steps if last_sigma == "zero" else steps + 1, denoise), steps, last_sigma)


def sampled(level: Callable[[float], float]) -> PartLevels:
    """The levels at even fractions of a function of the fraction, from that where the part begins to 1."""
    return lambda count, part: [level(u) for u in fractions(count, 1.0 - part)]


def ended(levels: Sequence[float], steps: int, last_sigma: str) -> tuple[float, ...]:
    """The last `steps` steps of `levels` with their end; raises InputError where two levels are one in float32."""
    chosen = tuple(map(float, levels))
    if last_sigma != "sigma_min":
        chosen = (*(chosen if last_sigma == "zero" else chosen[:-1]), 0.0)
    kept = chosen[-steps - 1 :]
    single = struct.unpack(f"{steps + 1}f", struct.pack(f"{steps + 1}f", *kept))
    if any(t >= s for s, t in pairwise(single)):
        cure = "take fewer steps, or a wider range"
        raise InputError("steps", f"is {steps}, so many that two noise levels are the same number in float32", cure)
    return kept


def whole(steps: int, denoise: float) -> int:
    """floor(steps / denoise), where a quotient that is a whole number on paper is one."""
    return math.floor(steps / denoise * (1.0 + 1e-12))


def check_range(sigma_min: float, sigma_max: float) -> None:
    if not 0.0 < sigma_min < sigma_max:
        problem = f"is {sigma_min:g}, not between 0 and sigma_max = {sigma_max:g}"
        raise InputError("sigma_min", problem, "give a sigma_min above 0 and below sigma_max")


def pinned(level: Callable[[float], float], sigma_min: float, sigma_max: float) -> Callable[[float], float]:
    """`level` with its ends, at the fractions 0 and 1, exactly at the range, where rounding would move them."""
    return lambda u: sigma_max if u == 0.0 else sigma_min if u == 1.0 else level(u)
