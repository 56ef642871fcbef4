"""Drawn curves, from the editor or written by hand into a prompt."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy_api.input import CurveInput

from ...samplers.parameters import InputError

CURE = 'draw it in the node, or give {"points": [[0, 0], [1, 1]], "interpolation": "linear"}'


def curve_of(value: Any, name: str) -> Callable[[float], float]:
    """The function of a curve widget: from 0 at its left to 1 at its right.

    Raises InputError for what is no curve: no points, or a point that is not two finite numbers.
    """
    if isinstance(value, CurveInput):
        return value.interp
    points = value
    if isinstance(value, Mapping):
        if "points" not in value:
            raise InputError(name, "has no points", CURE)
        points = value["points"]
    if not isinstance(points, Sequence) or isinstance(points, str) or not points:
        raise InputError(name, f"is no list of points but {short(points)}", CURE)
    for index, point in enumerate(points):
        if not is_point(point):
            raise InputError(name, f"is {short(point)}, not two finite numbers", CURE, index)
    return CurveInput.from_raw(value).interp


def is_point(point: Any) -> bool:
    if not isinstance(point, Sequence) or len(point) != 2:
        return False
    try:
        return all(math.isfinite(float(number)) for number in point)
    except (TypeError, ValueError, OverflowError):
        return False


def short(value: Any) -> str:
    """As it was typed, as far as a message has room."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
