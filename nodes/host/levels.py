"""The SIGMAS that a link carries, from any pack, as plain numbers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from ...samplers import FLOW, Path
from ...samplers.parameters import InputError
from ...samplers.plan import ascends
from ...samplers.schedules import checks

FROM_A_SCHEDULE = "wire the SIGMAS of a schedule node"
# ComfyUI's tables of shifted flow models are float32, and their last level is 1 but for a rounding or two of it.
ROUNDING = 1e-6


def read_sigmas(sigmas: Any, name: str = "sigmas") -> tuple[float, ...]:
    """The values of a SIGMAS socket: a tensor of one row or one column in any number format, or a list of numbers.

    Raises InputError for anything else, and for two levels that a narrow number format has made one.
    """
    if isinstance(sigmas, (list, tuple)):
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in sigmas):
            raise InputError(name, "is a list of other things than numbers", FROM_A_SCHEDULE)
        return tuple(map(float, sigmas))
    if not isinstance(sigmas, torch.Tensor) or sigmas.is_complex() or sigmas.dtype == torch.bool:
        kind = f"a tensor of {sigmas.dtype}" if isinstance(sigmas, torch.Tensor) else f"a {type(sigmas).__name__}"
        raise InputError(name, f"is {kind}, and no list of noise levels", FROM_A_SCHEDULE)
    if sigmas.ndim not in (1, 2) or (sigmas.ndim == 2 and 1 not in sigmas.shape):
        held = "" if sigmas.ndim else f", a single number, {float(sigmas):g}"
        problem = f"has the shape {list(sigmas.shape)}{held}, and a schedule is one list of noise levels"
        raise InputError(name, problem, FROM_A_SCHEDULE)
    levels = tuple(map(float, sigmas.flatten().tolist()))
    check_format(levels, sigmas.dtype, name)
    return levels


def rounding_of(sigmas: Any) -> float:
    """By how much, of itself, a level may be off from what it was made from, in the number format of a SIGMAS."""
    narrow = isinstance(sigmas, torch.Tensor) and sigmas.is_floating_point()
    return max(checks.ROUNDING, torch.finfo(sigmas.dtype).eps / 2 if narrow else 0.0)


def check_format(levels: Sequence[float], dtype: torch.dtype, name: str) -> None:
    """Raises InputError where levels collide that float32 would tell apart."""
    if dtype.is_floating_point and dtype.itemsize < 4:
        for index, (before, level) in enumerate(pairwise(levels), 1):
            if level == before:
                kind = str(dtype).removeprefix("torch.")
                problem = f"is {level:g}, the same as the level before it: {kind} has too few digits to tell them apart"
                raise InputError(name, problem, "leave SIGMAS in float32, or take fewer steps", index)


def snapped(path: Path, levels: Sequence[float]) -> tuple[float, ...]:
    """`levels` as a plan takes them: the highest level of a flow model, the first or upwards the last, is 1 where it
    differs from that by a rounding."""
    found = list(levels)
    end = -1 if ascends(levels) else 0
    if path is FLOW and found and abs(found[end] - 1.0) <= ROUNDING:
        found[end] = 1.0
    return tuple(found)
