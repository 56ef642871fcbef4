"""ComfyUI's own noise levels by the names that its samplers' nodes show, to the last bit and in its number of steps."""

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io

from ...samplers.parameters import InputError
from ...samplers.schedules import bong_tangent

# The host's nine in its order. Its own list grows with whatever other packs put into it.
OF_THE_HOST = (
    *("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic"),
    "kl_optimal",
)
Levels = Callable[[Any, int], torch.Tensor]
# Those that RES4LYF adds to the host's list.
ADDED: dict[str, Levels] = {
    "beta57": lambda sampling, steps: comfy.samplers.beta_scheduler(sampling, steps, alpha=0.5, beta=0.7),
    "bong_tangent": lambda _, steps: torch.tensor(bong_tangent(steps)),
}
NAMES = (*OF_THE_HOST, *ADDED)
# The samplers for which KSampler takes one step more and leaves the level before the last out.
WITHOUT_PENULTIMATE = ("dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2")
# Basic Scheduler's, and KSampler's with any other sampler.
NONE, OTHER = "none", "other"
# What a node that gives them asks for, beside steps and denoise.
NAMED_INPUTS = (
    io.Combo.Input("scheduler", options=list(NAMES), tooltip="The name in KSampler and Basic Scheduler."),
    io.Combo.Input(
        "for_sampler",
        options=[NONE, *WITHOUT_PENULTIMATE, OTHER],
        tooltip="none: as Basic Scheduler. A sampler: as KSampler with it, which leaves the level before "
        "the last out. other: as KSampler with any other, which differs with ddim_uniform alone.",
    ),
)


def named_sigmas(sampling: Any, name: str, steps: int, denoise: float, for_sampler: str = NONE) -> torch.Tensor:
    """What BasicScheduler gives, or KSampler with the sampler `for_sampler`.

    The last steps of a schedule of int(steps / denoise). Where the host's scheduler gives more than it was asked for
    (ddim_uniform), BasicScheduler leaves the first ones out, and KSampler does so only with a denoise below 1.

    Raises:
        InputError: a schedule with a level that is no number, as kl_optimal at one step.
    """
    if denoise <= 0.0:
        return torch.FloatTensor([])
    dropped = 1 if for_sampler in WITHOUT_PENULTIMATE else 0
    whole = denoise >= 1.0 or (for_sampler != NONE and denoise > 0.9999)
    total = dropped + (steps if whole else int(steps / denoise))
    made = ADDED[name](sampling, total) if name in ADDED else comfy.samplers.calculate_sigmas(sampling, name, total)
    made = made.cpu()
    if dropped:
        made = torch.cat([made[:-2], made[-1:]])
    if not whole or for_sampler == NONE:
        made = made[-(steps + 1) :]
    if not torch.isfinite(made).all():
        problem = f"is {steps}, and ComfyUI's {name} gives levels there that are no numbers"
        raise InputError("steps", problem, "take more steps, or the schedule node of that kind")
    return made
