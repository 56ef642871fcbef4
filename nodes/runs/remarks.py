"""What is worth a remark, and no error, about the beginning of a run: only the node with all its inputs can know it."""

from typing import Any

from ...samplers import VE, Plan
from ...samplers.parameters import InputError
from ...samplers.plan import ascends
from ...samplers.schedules.checks import FROM_THE_MODEL, INSTEAD, beginning
from ..host.levels import snapped
from ..host.seeds import AT_NOTHING, UNSEEDED, LatentNoise, components_of, has_seeds
from .face import Face
from .held import HeldRun


def is_noisy(noise: Any) -> bool:
    return any(bool(part.any()) for part in components_of(noise))


def remark_on_start(held: HeldRun, sigma_max: float, rounding: float, face: Face) -> None:
    """What only a node with model, schedule and latent can know.

    A level far below the model's highest is where a run begins from a picture; from nothing it makes a pale one.
    """
    if not held.steps > held.start_step:
        return
    name, other = face.words.get("sigmas", ("sigmas", None))
    if ascends(held.sigmas):
        upwards(held, sigma_max, rounding, face)
        return
    empty = not any(part.any() for part in components_of(held.latent["samples"]))
    for found in beginning(held.sigmas, sigma_max, held.start_step, rounding):
        problem, cure = found.problem, other or found.cure
        if not found.fatal:
            problem = f"{problem}, and latent_image is empty"
            if held.path is VE and held.sigmas[held.start_step] == 1.0:
                problem, for_it = f"{problem}: a flow model's schedule begins so", INSTEAD["VE"]
            else:
                for_it = FROM_THE_MODEL
            cure = f"{other or for_it}, or begin from a picture"
        if found.fatal or empty:
            face.say(str(InputError(name, problem, cure, found.index)))


def upwards(held: HeldRun, sigma_max: float, rounding: float, face: Face) -> None:
    for found in beginning(held.sigmas, sigma_max, held.steps, rounding):
        if found.fatal:
            face.say(str(InputError("sigmas", found.problem, found.cure, found.index)))
    if held.state is None and held.solver == "other" and held.sigmas[held.start_step] == 0.0:
        problem = "is 0, and most samplers divide by the level where they begin"
        face.say(
            str(InputError("sigmas", problem, "give a value above 0 to lowest in Reverse Sigmas", held.start_step))
        )


def remark_on_noise(held: HeldRun, plan: Plan | None, noise: Any, face: Face) -> None:
    """What a run without starting noise misses: a seed for what its solver adds, and any difference between its images
    where the path is noise alone. A NOISE that is a latent has no seed either."""
    if not held.steps > held.start_step:
        return
    name, other = face.words.get("noise", ("noise", None))
    first = snapped(held.path, held.sigmas[held.start_step :])[0]
    if not has_seeds(noise) and held.seed == 0 and plan is not None and plan.adds_noise:
        problem, cure = UNSEEDED
        if isinstance(noise, LatentNoise) or not is_noisy(held.noise):
            face.say(str(InputError(name, problem.format(held.solver), cure)))
    if not is_noisy(held.noise) and held.path.is_noise(first):
        problem, cure = AT_NOTHING
        face.say(str(InputError(name, problem, other or cure)))
