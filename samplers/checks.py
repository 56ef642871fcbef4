"""What a schedule must be before a solver may see it."""

import math
from collections.abc import Sequence

from .parameters import InputError
from .path import Path


def check_sigmas(path: Path, sigmas: Sequence[float], name: str = "sigmas") -> None:
    """Raises InputError unless `sigmas` are at least two finite noise levels, descending strictly, none below 0 and
    none above the path's largest."""
    if len(sigmas) < 2:
        held = "is empty" if not sigmas else f"holds one value, {sigmas[0]:g}"
        raise InputError(name, held, "one step needs two values: wire a schedule node with at least 1 step")
    for index, sigma in enumerate(sigmas):
        if not math.isfinite(sigma):
            cure = "remove the node that made it: noise levels are finite numbers"
            raise InputError(name, f"is {sigma}", cure, index)
        if sigma < 0.0:
            raise InputError(name, f"is {sigma:g}, below 0", "noise levels run down to 0 and no further", index)
        if index and sigma >= sigmas[index - 1]:
            problem = f"is {sigma:g}, not below the value before it, {sigmas[index - 1]:g}"
            raise InputError(name, problem, "wire a schedule that descends at every step", index)
    if sigmas[0] > path.sigma_max:
        problem = f"is {sigmas[0]:g}, and a flow model begins at 1"
        raise InputError(name, problem, "wire the model into the schedule node, so that it takes the range from it", 0)
