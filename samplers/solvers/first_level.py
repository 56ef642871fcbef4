"""The level at which a run on a flow model begins, where the host moves it away from 1."""

from collections.abc import Sequence
from typing import Annotated, Literal

from ..parameters import Param
from ..path import FLOW, Path

FirstLevel = Annotated[
    Literal["as_given", "core"],
    Param(
        "Where a run on a flow model begins: as_given at the first level of the schedule; core, where that is 1, a "
        "little below it, as in ComfyUI's own sampler.",
        rare=True,
    ),
]
# ComfyUI begins at this part of the way from pure noise to the picture, in the model's own time.
PERCENT = 1e-4
# Which is this level where that time is not shifted.
BELOW_ONE = 1.0 - PERCENT


def begun(path: Path, sigmas: Sequence[float], first_level: str, below: float) -> tuple[float, ...]:
    """`sigmas`, the first one `below` where it is 1 on FLOW and `first_level` is core.

    x stays what it is at 1. ComfyUI does so for samplers that need a finite log-SNR; `below` is the model's level at
    the part 1e-4 of the way.
    """
    if first_level == "core" and path is FLOW and sigmas[0] >= 1.0:
        return (below, *sigmas[1:])
    return tuple(sigmas)
