"""A run of a sampler under a guider, whole or in part: what every step node does."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import comfy.model_management
import comfy.nested_tensor
import comfy.sample
import comfy.utils
import latent_preview
import torch

from ..samplers.checks import check_sigmas
from ..samplers.parameters import InputError
from .host import PlanRun, PlanSampler, make_plan, moved, path_of, sampling_of
from .noise import component_sizes, image_seeds
from .state import HeldRun


def sample(
    guider: Any,
    sampler: Any,
    noise: Any,
    latent_image: Mapping[str, Any] | None,
    sigmas: torch.Tensor | None,
    state: HeldRun | None,
    start_step: int,
    end_step: int,
) -> tuple[dict[str, Any], dict[str, Any], HeldRun]:
    """Runs the steps from `start_step` (or from where `state` stands) up to `end_step`.

    Returns the latent at that point, the last prediction of the clean latent, and the state.
    Raises InputError for an input that cannot be used, before the model is touched.
    """
    solver, params = (sampler.solver.name, sampler.settings) if isinstance(sampler, PlanSampler) else ("other", {})
    schedule = None if sigmas is None else tuple(sigmas.tolist())
    path = path_of(sampling_of(guider.model_patcher))
    if state is None:
        held = fresh(guider, noise, latent_image, schedule, start_step)
        held = replace(held, solver=solver, params=params)
    else:
        held = state
        held.check_fits(solver, params, path, schedule)
        check_resumed_step(held, sampler, start_step)
    return go(guider, sampler, held, min(end_step, len(held.sigmas) - 1))


def fresh(
    guider: Any, noise: Any, latent_image: Mapping[str, Any] | None, sigmas: tuple[float, ...] | None, start_step: int
) -> HeldRun:
    """The beginning of a run, its inputs checked."""
    for name, value in (("noise", noise), ("latent_image", latent_image), ("sigmas", sigmas)):
        if value is None:
            raise InputError(name, "is not wired", "wire it, or wire a state to go on from")
    path = path_of(sampling_of(guider.model_patcher))
    check_sigmas(path, sigmas)
    if start_step >= len(sigmas) - 1:
        problem = f"is {start_step}, and the schedule has the steps 0 to {len(sigmas) - 2}"
        raise InputError("start_step", problem, "lower it, or wire a longer schedule")
    latent = fitting(guider, latent_image)
    made = noise.generate_noise(latent)
    return HeldRun("", {}, path, sigmas, start_step, made, latent, noise.seed, **asdict(image_seeds(noise, latent)))


def fitting(guider: Any, latent_image: Mapping[str, Any]) -> dict[str, Any]:
    """`latent_image` with an empty latent in the model's own shape; raises InputError where it cannot fit the model."""
    if not isinstance(latent_image, Mapping) or "samples" not in latent_image:
        raise InputError("latent_image", "is not a LATENT", "wire Empty Latent Image or VAE Encode")
    latent = dict(latent_image)
    scales = (latent.pop("downscale_ratio_spacial", None), latent.pop("downscale_ratio_temporal", None))
    samples = comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"], *scales)
    if not samples.is_nested:
        form = guider.model_patcher.get_model_object("latent_format")
        if samples.ndim != form.latent_dimensions + 2 or samples.shape[1] != form.latent_channels:
            problem = (
                f"has the shape {tuple(samples.shape)}, and the model takes {form.latent_channels} channels "
                f"in {form.latent_dimensions} dimensions"
            )
            raise InputError("latent_image", problem, "encode the picture with this model's own VAE")
    latent["samples"] = samples
    return latent


def check_resumed_step(held: HeldRun, sampler: PlanSampler, start_step: int) -> None:
    plan = make_plan(sampler.solver, sampler.params, held.path, held.sigmas[held.start_step :])
    stages = plan.stages[held.state.index :]
    stands = held.start_step + (stages[0].step if stages else plan.steps)
    if start_step not in (0, stands):
        raise InputError("start_step", f"is {start_step}, and the state stands at step {stands}", "set it to 0")


def go(guider: Any, sampler: Any, held: HeldRun, end_step: int) -> tuple[dict[str, Any], dict[str, Any], HeldRun]:
    """Lets the host's guider run the part, and takes the results out of it."""
    sigmas = torch.tensor(held.sigmas[held.start_step :])
    steps, stop = len(sigmas) - 1, end_step - held.start_step
    if stop < 1:
        problem = f"is {end_step}, and the run begins at step {held.start_step}"
        raise InputError("end_step", problem, "raise it above the step where the run begins")
    if isinstance(sampler, PlanSampler):
        plan = make_plan(sampler.solver, sampler.params, held.path, sigmas.tolist())
        sampler = PlanRun(
            sampler,
            plan,
            held.state,
            stop,
            held.memory,
            seeds=held.image_seeds,
            components=component_sizes(held.latent["samples"]),
        )
    else:
        sigmas = sigmas[: stop + 1]

    seen: dict[str, Any] = {}
    samples = guider.sample(
        held.noise,
        held.latent["samples"],
        sampler,
        sigmas,
        denoise_mask=held.latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(guider.model_patcher, steps, seen),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=held.seed,
    )
    samples = samples.to(comfy.model_management.intermediate_device())
    output = {**held.latent, "samples": samples}
    if isinstance(sampler, PlanRun):
        memory = {name: value.cpu() for name, value in sampler.memory.items()}
        held = replace(held, state=moved(sampler.state, torch.device("cpu")), memory=memory)
        seen.setdefault("x0", unpacked(held.state.denoised, held.latent["samples"]))
    x0 = seen.get("x0")
    if x0 is None:
        return output, output, held
    return output, {**held.latent, "samples": guider.model_patcher.model.process_latent_out(x0.cpu())}, held


def unpacked(x0: torch.Tensor, like: Any) -> Any:
    """A prediction in the shape of the latent: the host packs nested latents into one row for its samplers."""
    if not like.is_nested:
        return x0
    shapes = [part.shape for part in like.unbind()]
    return comfy.nested_tensor.NestedTensor(comfy.utils.unpack_latents(x0, shapes))
