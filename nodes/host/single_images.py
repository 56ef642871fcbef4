"""The images of a batch within a run of the host, each by itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import Tensor

from ...samplers.parameters import InputError

Conds = Mapping[str, Any]


def of_image(value: Any, image: int, images: int) -> Any:
    """The part of a tensor that belongs to an image of a batch: all of it, where it is for all."""
    return value[image : image + 1] if isinstance(value, Tensor) and len(value) == images else value


def model_of_image(model: Any, image: int, images: int) -> Any:
    """The host's `KSamplerX0Inpaint` for one image."""
    made = copy(model)
    for name in ("latent_image", "noise"):
        if hasattr(made, name):
            setattr(made, name, of_image(getattr(made, name), image, images))
    return made


@contextmanager
def conditioned_as(guider: Any, image: int, images: int) -> Iterator[None]:
    """Within it a guider that is sampling a batch has the conditionings of one image of it."""
    if images == 1:
        yield
        return
    run = getattr(guider, "run", None)
    others = getattr(getattr(run, "others", None), "ready", {})
    holders = [each for each in (guider, *others.values()) if isinstance(getattr(each, "conds", None), dict)]
    whole = [each.conds for each in holders]
    try:
        for holder, conds in zip(holders, whole, strict=True):
            holder.conds = {
                name: group if group is None else [cond_of_image(each, image, images) for each in group]
                for name, group in conds.items()
            }
        yield
    finally:
        for holder, conds in zip(holders, whole, strict=True):
            holder.conds = conds


def cond_of_image(cond: Conds, image: int, images: int) -> dict[str, Any]:
    """A conditioning as the host has made it ready, for one image.

    Raises InputError for a ControlNet that shows every image a picture of its own.
    """
    control = cond.get("control")
    while control is not None:
        hint = getattr(control, "cond_hint_original", None)
        if isinstance(hint, Tensor) and len(hint) > 1:
            problem = f"has a ControlNet with {len(hint)} pictures, and steps are chosen for one image at a time"
            raise InputError("guider", problem, "sample one image at a time, or take a solver of fixed steps")
        control = getattr(control, "previous_controlnet", None)
    made = dict(cond)
    if "mask" in made:
        made["mask"] = of_image(made["mask"], image, images)
    if "model_conds" in made:
        made["model_conds"] = {name: _input(each, image, images) for name, each in made["model_conds"].items()}
    return made


def _input(value: Any, image: int, images: int) -> Any:
    whole = getattr(value, "cond", None)
    part = of_image(whole, image, images)
    return value if part is whole else value._copy_with(part)
