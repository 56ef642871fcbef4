"""One node for what takes four: guider, noise, schedule and solver, with KSampler's inputs."""

from typing import Any

import torch
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

from ..samplers.guidance.expressions import Leaf
from ..samplers.parameters import InputError
from ..samplers.registry import SCHEDULES, SOLVERS, Schedule, Solver
from .host.guider import GuidedGuider, PredictionGuider
from .host.latents import positions
from .host.models import sampling_of, trained_of
from .host.sampler import PlanSampler
from .host.schedulers import NAMED_INPUTS, named_sigmas
from .host.seeds import SEEDS, ZeroNoise
from .runs import run
from .runs.autosave import Autosave
from .runs.face import Face
from .runs.held import HeldRun
from .shared.inputs import (
    HIDDEN,
    NOISE_INPUTS,
    STEP_OUTPUTS,
    STEPS_INPUTS,
    WINDOW_INPUTS,
    chosen,
    required,
    schedule_widgets,
)
from .shared.messages import Words, named
from .shared.preview import schedule_values
from .shared.schema import StateType, later_last, widgets

NAME = "KSampler (Stepwise)"
# The choices that stand first, which is all that a dynamic choice has for a default.
FIRST = ("DPM++ 2M", "Karras")
OWN = ("steps", "denoise")
# The host's own levels, as Schedule by Name gives them; the last choice, after those of the registry.
BY_NAME = "By Name"
ENABLE = ["enable", "disable"]
AS_BEFORE = (
    "choose schedule, its settings, steps and denoise as in the node that made the state, with "
    "return_with_leftover_noise at enable there, or set on_mismatch to fork"
)
# Of a run that begins with too little noise, or none.
LOGGED: Words = {
    "sigmas": ("schedule", "set denoise to 1 and start_step to 0"),
    "noise": ("add_noise", "set add_noise to enable, or denoise below 1"),
}


def first(entries: tuple[Any, ...]) -> list[Any]:
    return sorted(entries, key=lambda entry: entry.name not in FIRST)


def solver_option(solver: Solver) -> io.DynamicCombo.Option:
    return io.DynamicCombo.Option(
        solver.name, later_last([*widgets(solver.plan), *(NOISE_INPUTS if solver.stochastic else ())])
    )


def schedule_option(schedule: Schedule) -> io.DynamicCombo.Option:
    """The schedule's own parameters: not those of the node, nor what model and latent answer, which are wired here."""
    shown = [each for each in schedule_widgets(schedule) if each.id not in {*OWN, *schedule.answered, schedule.counts}]
    return io.DynamicCombo.Option(schedule.name, shown)


def schedule_options() -> list[io.DynamicCombo.Option]:
    """By Name last."""
    return [*map(schedule_option, first(SCHEDULES)), io.DynamicCombo.Option(BY_NAME, list(NAMED_INPUTS))]


class StepwiseKSampler(io.ComfyNode):
    """The guider, schedule and run of the separate nodes, made from one node's inputs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        steps, denoise = STEPS_INPUTS
        return io.Schema(
            node_id="StepwiseKSampler",
            display_name=NAME,
            category="stepwise/samplers",
            description="Samples as KSampler does, with any solver and schedule of Stepwise and their own settings. It "
            "can stop at a step and go on from a state.",
            search_aliases=[
                "ksampler",
                "k sampler",
                "sampler",
                "ksampler advanced",
                "dpm++ 2m karras",
                "denoise",
                "img2img",
                "txt2img",
                "inpaint",
                "sd1.5",
                "sdxl",
                "flux",
                "stepwise",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with whatever patches it carries."),
                io.Conditioning.Input("positive", tooltip="What the picture should be."),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What it should not be. Not needed with cfg 1, as for Flux and distilled models.",
                ),
                io.Latent.Input(
                    "latent_image", optional=True, tooltip="What to begin from. Not needed when a state is wired."
                ),
                StateType.Input("state", optional=True, tooltip="Go on from where another step node stopped."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=SEEDS - 1,
                    control_after_generate=True,
                    tooltip="Of the starting noise, and of what the solver adds. With a state its own seed counts.",
                ),
                steps,
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=False,
                    tooltip="Guidance scale: 1 is the positive prompt alone, at half the cost.",
                ),
                denoise,
                *WINDOW_INPUTS[:2],
                io.Combo.Input(
                    "add_noise",
                    options=ENABLE,
                    advanced=True,
                    tooltip="disable: the latent has its noise already, as in the second of two KSampler (Advanced).",
                ),
                io.Combo.Input(
                    "return_with_leftover_noise",
                    options=ENABLE,
                    advanced=True,
                    tooltip="When end_step stops early: enable keeps the noise that is left; disable ends at level 0.",
                ),
                *map(required, WINDOW_INPUTS[2:]),
                io.DynamicCombo.Input(
                    "solver",
                    options=[solver_option(each) for each in first(SOLVERS)],
                    tooltip="How the steps are taken, and the settings of that.",
                ),
                io.DynamicCombo.Input(
                    "schedule",
                    options=schedule_options(),
                    tooltip="The noise levels of the steps, and the settings of that. Ranges come from the model.",
                ),
            ],
            outputs=list(STEP_OUTPUTS),
            hidden=list(HIDDEN),
            # The page draws what the node did, also when a run takes it from the cache.
            has_intermediate_output=True,
            # An unknown choice arrives too, to be answered in words.
            accept_all_inputs=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        seed,
        steps,
        cfg,
        denoise,
        start_step,
        end_step,
        add_noise,
        return_with_leftover_noise,
        autosave_every=0,
        on_mismatch="error",
        solver=None,
        schedule=None,
        negative=None,
        latent_image=None,
        state=None,
        **_: Any,
    ) -> io.NodeOutput:
        with named(NAME):
            guider = guider_of(model, positive, negative, cfg)
            entry, params = chosen("solver", {each.name: each for each in first(SOLVERS)}, solver)
            option, settings = chosen("schedule", {each.key: each for each in schedule_options()}, schedule)
            if negative is None and params.get("cfg_pp"):
                cure = "wire what the picture should not be, an empty prompt, or turn solver.cfg_pp off"
                raise InputError("negative", "is not wired, and solver.cfg_pp needs its prediction", cure)
        with named(NAME, settings_of("schedule", option)):
            latent = latent_image if state is None else state.latent
            sigmas = levels(sampling_of(model), option.key, settings, latent, steps, denoise)
        cure = "choose other settings of schedule, or other steps" if state is None else AS_BEFORE
        with named(NAME, {**settings_of("solver", solver_option(entry)), "sigmas": ("schedule", cure)}):
            kept = {name: params.pop(name) for name in ("noise_device", "noise_kind") if name in params}
            sampler = PlanSampler(entry, params, **kept)
            if return_with_leftover_noise == "disable" and end_step < len(sigmas) - 1:
                check_ending(start_step, end_step, len(sigmas) - 1, state if on_mismatch == "error" else None)
                sigmas = (*sigmas[:end_step], 0.0)
            noise = None
            if state is None:
                noise = (Noise_RandomNoise if add_noise == "enable" else ZeroNoise)(seed)
            autosave, face = Autosave.of(autosave_every, cls.hidden, guider), Face.of(cls.hidden, LOGGED)
            wired = (noise, latent_image, torch.tensor(sigmas), state)
            made = run.sample(guider, sampler, *wired, start_step, end_step, on_mismatch, autosave, face)
        return io.NodeOutput(*made, ui=face.after(made[2], state))


def settings_of(name: str, option: io.DynamicCombo.Option) -> Words:
    """The settings of a choice, named as in a prompt."""
    return {each.id: (f"{name}.{each.id}", None) for each in option.inputs}


def check_ending(start_step: int, end_step: int, steps: int, state: HeldRun | None) -> None:
    """Raises InputError where the schedule cannot end at `end_step`: before the run begins, or in the middle of the
    schedule of a `state`."""
    if state is None and end_step < start_step:
        problem = f"is {end_step}, and the run begins at step {start_step}"
        raise InputError("end_step", problem, "raise it to the step where the run begins, or above")
    if state is not None and end_step != state.steps:
        problem = f"is disable, which ends the schedule at step {end_step}, and that of the state has {state.steps}"
        cure = "set it to enable, or set on_mismatch to fork"
        raise InputError("return_with_leftover_noise", problem, cure)


def guider_of(model: Any, positive: Any, negative: Any, cfg: float) -> PredictionGuider:
    """CFG Guider (Stepwise) on both prompts; the positive one alone where there is no negative."""
    if negative is None:
        if cfg != 1.0:
            problem = f"is not wired, and cfg is {cfg:g}"
            raise InputError(
                "negative", problem, "wire what the picture should not be, an empty prompt, or set cfg to 1"
            )
        guider = PredictionGuider(model)
        guider.set_prediction(Leaf(positive))
        return guider
    guider = GuidedGuider(model)
    guider.set_cfg(cfg)
    guider.set_conds(positive, negative)
    return guider


def levels(
    sampling: Any, name: str, settings: dict[str, Any], latent: Any, steps: int, denoise: float
) -> tuple[float, ...]:
    """The noise levels of a choice of schedule, ranges from the model and positions from the latent."""
    if name == BY_NAME:
        asked = {each.id: settings.get(each.id, each.options[0]) for each in NAMED_INPUTS}
        for each in NAMED_INPUTS:
            if asked[each.id] not in each.options:
                raise InputError(each.id, f"is {asked[each.id]!r}", f"choose one of {', '.join(each.options)}")
        return tuple(named_sigmas(sampling, asked["scheduler"], steps, denoise, asked["for_sampler"]).tolist())
    schedule = next(each for each in SCHEDULES if each.name == name)
    if schedule.counts and latent is not None:
        settings = {**settings, schedule.counts: positions(latent)}
    return schedule_values(schedule, trained_of(sampling), {**settings, "steps": steps, "denoise": denoise})
