"""A recipe as the host's SAMPLER, which says where it is not what it was made for."""

import logging
import math
from typing import Any

import torch

from ...samplers.recipe import Recipe
from .models import family_of
from .sampler import PlanSampler

NAMES = ("model", "sampling", "latent", "channels")


class RecipeSampler(PlanSampler):
    """The solver of a recipe: a fitted plan, or one of the registry."""

    def __init__(self, recipe: Recipe):
        super().__init__(recipe.entry, recipe.params)
        self.recipe = recipe

    def integrate(
        self, model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args=None, callback=None, disable=None
    ) -> torch.Tensor:
        for said in remarks(self, model.inner_model):
            logging.warning("Stepwise: %s", said)
        return super().integrate(model, x, sigmas, extra_args, callback, disable)


def remarks(sampler: Any, guider: Any) -> list[str]:
    """What a SAMPLER of a recipe is not made for in this guider: another model, another guidance."""
    recipe = getattr(sampler, "recipe", None)
    if not isinstance(recipe, Recipe):
        return []
    found, made = list[str](), family_of(guider.model_patcher)
    differs = [name for name in NAMES if name in recipe.model and recipe.model[name] != made.get(name)]
    if differs:
        theirs, ours = (", ".join(str(each.get(name)) for name in differs) for each in (recipe.model, made))
        found.append(f"the plan was made for another model ({theirs}), and this one is {ours}: expect less of it.")
    cfg = getattr(guider, "cfg", None)
    if recipe.cfg and isinstance(cfg, (int, float)) and not math.isclose(cfg, recipe.cfg, rel_tol=1e-3):
        found.append(f"the plan was made for guidance {recipe.cfg:g}, and the guider has {cfg:g}: expect less of it.")
    return found
