"""A run of a sampler under a guider, whole or in part: what every step node does."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import comfy.model_management
import comfy.utils
import torch

from ...samplers import Plan, start
from ...samplers.checkpoint import fingerprint
from ...samplers.parameters import InputError
from ...samplers.plan import ascends
from ...samplers.schedules.checks import check_sigmas
from ..host.fitted import remarks
from ..host.latents import packed, read_latent, read_noise, unpacked
from ..host.levels import read_sigmas, rounding_of, snapped
from ..host.models import below_one, core_interval, family_of, family_of_all, path_of, sampling_of
from ..host.onlooker import Watched
from ..host.previews import EVERY_IMAGE, FIRST_IMAGE, callback_of
from ..host.sampler import MASKED, UNMASK, PlanRun, PlanSampler
from ..host.seeds import component_sizes, image_seeds, seed_of
from ..host.transfer import state_on
from .autosave import Autosave
from .face import Face
from .files import kept
from .held import HeldRun, check_family
from .remarks import is_noisy, remark_on_noise, remark_on_start
from .resume import plan_of, resumed
from .trajectory import Recorder
from .unfinished import marked, remark, unmarked


def sample(
    guider: Any,
    sampler: Any,
    noise: Any,
    latent_image: Mapping[str, Any] | None,
    sigmas: torch.Tensor | None,
    state: HeldRun | None,
    start_step: int,
    end_step: int,
    on_mismatch: str = "error",
    autosave: Autosave | None = None,
    face: Face | None = None,
    recorder: Recorder | None = None,
    previews: str = FIRST_IMAGE,
) -> tuple[dict[str, Any], dict[str, Any], HeldRun]:
    """Runs the steps from `start_step` (or from where `state` stands) up to `end_step`.

    Returns the latent at that point, the last prediction of the clean latent, and the state. What is worth a remark and
    no error is said on `face`; a `recorder` looks at every step.
    Raises InputError for an input that cannot be used, before the model is touched.
    """
    face = face or Face()
    previews = EVERY_IMAGE if EVERY_IMAGE in (previews, face.previews) else previews
    schedule = None if sigmas is None else read_sigmas(sigmas)
    if autosave is not None and not isinstance(sampler, PlanSampler):
        problem = f"is {autosave.every}, and this SAMPLER is not one of Stepwise: it keeps nothing to save on the way"
        raise InputError("autosave_every", problem, "set it to 0, or wire a Sampler node of Stepwise")
    if state is None:
        held, plan = fresh(guider, sampler, noise, latent_image, schedule, start_step, face)
        remark_on_start(held, held.highest, rounding_of(sigmas), face)
        remark_on_noise(held, plan, noise, face)
        beside, held = held.latent, replace(held, latent=kept(held.latent))
    else:
        check_family(state, path_of(sampling_of(guider.model_patcher)), family_of(guider.model_patcher))
        held, plan = resumed(state, sampler, noise, schedule, start_step, on_mismatch, face)
        beside = held.latent
    for said in remarks(sampler, guider):
        face.say(said)
    output, denoised, held = go(guider, sampler, held, plan, end_step, autosave, recorder, previews)
    # What other nodes put into the latent goes on with it, whether a state can hold it or not.
    reached = held.step if held.state is not None else min(end_step, max(held.steps, 0))
    return marked({**beside, **output}, held, reached), unmarked({**beside, **denoised}), held


def fresh(
    guider: Any,
    sampler: Any,
    noise: Any,
    latent_image: Mapping[str, Any] | None,
    sigmas: tuple[float, ...] | None,
    start_step: int,
    face: Face,
) -> tuple[HeldRun, Plan | None]:
    """The beginning of a run, its inputs checked, and the plan of a SAMPLER of ours."""
    for name, value in (("noise", noise), ("latent_image", latent_image), ("sigmas", sigmas)):
        if value is None:
            raise InputError(name, "is not wired", "wire it, or wire a state to go on from")
    path = path_of(sampling_of(guider.model_patcher))
    check_sigmas(path, snapped(path, sigmas), fewest=0, upwards=True)
    if start_step and start_step >= len(sigmas):
        there = f"the steps 0 to {len(sigmas) - 2}" if len(sigmas) > 1 else "no step"
        problem = f"is {start_step}, and the schedule has {there}"
        raise InputError("start_step", problem, "lower it, or take a schedule of more steps")
    latent = unmarked(read_latent(guider.model_patcher, latent_image))
    if ascends(sigmas) and latent.get("noise_mask") is not None:
        raise InputError("latent_image", MASKED, UNMASK)
    made = read_noise(noise, latent)
    solver, settings = (sampler.solver.name, sampler.settings) if isinstance(sampler, PlanSampler) else ("other", {})
    core_from, core_to = core_interval(sampling_of(guider.model_patcher), settings) or (0.0, 0.0)
    held = HeldRun(
        solver,
        settings,
        path,
        sigmas,
        start_step,
        made,
        latent,
        seed_of(noise),
        solver_step=start_step,
        step=start_step,
        model=family_of_all(guider),
        highest=float(sampling_of(guider.model_patcher).sigma_max),
        below=below_one(sampling_of(guider.model_patcher)),
        core_from=core_from,
        core_to=core_to,
        **asdict(image_seeds(noise, latent)),
    )
    if start_step < held.steps and (said := remark(latent_image, is_noisy(made), sigmas[start_step])):
        face.say(said)
    if not isinstance(sampler, PlanSampler):
        return held, None
    plan = plan_of(held, sampler)
    if not sigmas:
        # The host asks no sampler to take no steps, and hands the latent back.
        held = replace(held, state=start(packed(latent["samples"])), denoised=latent["samples"])
    return replace(held, plan=fingerprint(plan)), plan


def go(
    guider: Any,
    sampler: Any,
    held: HeldRun,
    plan: Plan | None,
    end_step: int,
    autosave: Autosave | None = None,
    recorder: Recorder | None = None,
    previews: str = FIRST_IMAGE,
) -> tuple[dict[str, Any], dict[str, Any], HeldRun]:
    """Lets the host's guider run the part, and takes the results out of it."""
    end = min(end_step, held.steps)
    if held.state is None and end < held.start_step:
        problem = f"is {end_step}, and the run begins at step {held.start_step}"
        raise InputError("end_step", problem, "raise it to the step where the run begins, or above")
    if end < held.step:
        problem = f"is {end_step}, and the state stands at step {held.step}"
        raise InputError("end_step", problem, "raise it above that step")
    if recorder is not None:
        recorder.of_steps(held, end)
    if plan is None or not held.sigmas:
        return foreign(guider, sampler if recorder is None else Watched(sampler, recorder), held, end, previews)

    def present() -> HeldRun:
        return standing(guider, held, run)

    def turn() -> None:
        autosave.turn(held.solver_step + run.step, present)

    run = PlanRun(
        sampler,
        plan,
        held.state,
        end - held.solver_step,
        held.memory,
        before=held.solver_step - held.start_step,
        seeds=held.image_seeds,
        components=component_sizes(held.latent["samples"]),
        batching=held.batching,
        patches=held.patches,
        turn=None if autosave is None else turn,
        limits=held.limits,
        warms_up=held.warm_up,
        onlooker=recorder,
    )
    try:
        levels = snapped(held.path, held.sigmas[held.start_step :])
        samples, _ = hosted(guider, run, held, torch.tensor(levels), previews)
    except BaseException:
        # Cancel is one of these. What the run has reached is worth keeping.
        if autosave is not None and run.step:
            autosave.last(present)
        raise
    held = present()
    return {**held.latent, "samples": samples}, {**held.latent, "samples": held.denoised}, held


def hosted(guider: Any, sampler: Any, held: HeldRun, sigmas: torch.Tensor, previews: str) -> tuple[Any, dict[str, Any]]:
    """The latent that the host's guider makes of the run's own inputs, and what its callback has seen."""
    seen: dict[str, Any] = {}
    samples = guider.sample(
        held.noise,
        held.latent["samples"],
        sampler,
        sigmas,
        denoise_mask=held.latent.get("noise_mask"),
        callback=callback_of(guider.model_patcher, len(sigmas) - 1, seen, previews),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=held.seed,
    )
    return samples.to(comfy.model_management.intermediate_device()), seen


def foreign(
    guider: Any, sampler: Any, held: HeldRun, end: int, previews: str
) -> tuple[dict[str, Any], dict[str, Any], HeldRun]:
    """A SAMPLER that is not ours runs on its part of the schedule alone, as in the host.

    Raises InputError where that ends at level 1 of a flow model, as the host divides by 1 - sigma.
    """
    if ascends(held.sigmas) and end > held.start_step and held.path.is_noise(held.sigmas[end]):
        problem = f"end at {held.sigmas[end]:g}, where ComfyUI divides the result of a SAMPLER of others by 0"
        raise InputError("sigmas", problem, "let them end at .9999, or take a SAMPLER of Stepwise, which goes to 1")
    samples, seen = hosted(guider, sampler, held, torch.tensor(held.sigmas[held.start_step : end + 1]), previews)
    output = {**held.latent, "samples": samples}
    if seen.get("x0") is None:
        return output, output, held
    return output, {**held.latent, "samples": as_latent(guider, seen["x0"])}, held


def standing(guider: Any, held: HeldRun, run: PlanRun) -> HeldRun:
    """`held` as the run has left it, off the device. A part of no steps has at most made x of latent and noise."""
    if not run.step:
        return held if held.state is not None else begun(held, run)
    state, memory = run.left()
    return replace(
        held,
        state=state,
        memory=memory,
        patches=run.remembered.on_cpu(),
        forgotten=tuple(dict.fromkeys((*held.forgotten, *run.forgotten))),
        step=held.solver_step + run.step,
        denoised=as_latent(guider, unpacked(state.denoised, held.latent["samples"])),
        batching=run.batching,
        warm_up=False,
    )


def begun(held: HeldRun, run: PlanRun) -> HeldRun:
    """A run that stands where it begins: the model has said nothing yet, so its picture so far is the latent."""
    return replace(held, state=state_on(run.state, torch.device("cpu")), denoised=held.latent["samples"])


def as_latent(guider: Any, x0: Any) -> Any:
    """A prediction as a LATENT has it."""
    return guider.model_patcher.model.process_latent_out(x0.cpu())
