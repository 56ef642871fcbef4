"""Nodes that take schedules apart, join them, change them, check them and read them from text."""

import math
from typing import Any

import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ..samplers import VE, Plan
from ..samplers.parameters import InputError, counted
from ..samplers.schedules.checks import Notice, check_sigmas, faults, remarks
from ..samplers.schedules.editing import (
    first_below,
    first_not_above,
    hand_over,
    joined,
    parsed,
    resampled,
    reversed_sigmas,
    scaled,
    split_at,
    step_of_calls,
    with_first,
)
from .host.levels import read_sigmas, rounding_of, snapped
from .host.models import path_of, sampling_of, trained_of
from .host.sampler import OWN_LIMITS, Limits, PlanSampler, make_plan
from .shared.messages import named
from .shared.schema import only

CATEGORY = "stepwise/schedules/sigmas"
SIGMAS = "Noise levels, from any schedule node."


def given(sigmas: Any, name: str = "sigmas") -> tuple[float, ...]:
    """The values of a SIGMAS socket in any order, finite and at least two of them."""
    values = read_sigmas(sigmas, name)
    if len(values) < 2:
        raise InputError(name, "has no step", "wire a schedule with at least one step")
    for index, sigma in enumerate(values):
        if not math.isfinite(sigma):
            raise InputError(name, f"is {sigma}, and noise levels are finite", "look at the node that makes it", index)
    return values


class StepwiseSplitSigmas(io.ComfyNode):
    """A schedule in two parts that share the level where it is cut."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseSplitSigmas",
            display_name="Split Sigmas (Stepwise)",
            category=CATEGORY,
            description="Cuts a schedule in two: at a step, a noise level, a percentage of the model's time, the point "
            "where one model hands over to another, or after a number of model calls.",
            search_aliases=["split", "hand-over", "high noise", "low noise", "wan 2.2", "sdxl refiner", "stepwise"],
            inputs=[
                io.Sigmas.Input("sigmas", tooltip=SIGMAS),
                io.Combo.Input(
                    "at",
                    options=["step", "sigma", "percent", "hand-over", "model calls"],
                    tooltip="Where to cut; only the input of that name is used.",
                ),
                io.Int.Input(
                    "step",
                    default=10,
                    min=1,
                    max=10000,
                    tooltip="Steps of the first part, for step.",
                    extra_dict=only("at", "step"),
                ),
                io.Float.Input(
                    "sigma",
                    default=1.0,
                    min=0.0,
                    max=20000.0,
                    step=0.001,
                    round=False,
                    tooltip="The second part begins at the first level that is not above this, for sigma.",
                    extra_dict=only("at", "sigma"),
                ),
                io.Float.Input(
                    "percent",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    round=False,
                    tooltip="Part of the model's time before the cut, as in ComfyUI's percent inputs. Needs the model.",
                    extra_dict=only("at", "percent"),
                ),
                io.Float.Input(
                    "boundary",
                    default=0.875,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    round=False,
                    tooltip="Part of the trained time below which the second model works, for hand-over: 0.875 for "
                    "Wan 2.2, 0.9 for its image to video, 0.2 for the SDXL refiner. Needs the model.",
                    extra_dict=only("at", "hand-over"),
                ),
                io.Int.Input(
                    "calls",
                    default=10,
                    min=1,
                    max=100000,
                    tooltip="Model calls that the first part makes at most, for model calls. Needs the sampler.",
                    extra_dict=only("at", "model calls"),
                ),
                io.Model.Input("model", optional=True, tooltip="For percent and hand-over: the model of the run."),
                io.Sampler.Input("sampler", optional=True, tooltip="For model calls: the SAMPLER of the run."),
            ],
            outputs=[
                io.Sigmas.Output("high_sigmas", tooltip="The first part, down to the cut."),
                io.Sigmas.Output("low_sigmas", tooltip="The second part, from the cut on."),
                io.Int.Output("step", tooltip="The step of the cut, for end_step and start_step of a step node."),
            ],
        )

    @classmethod
    def execute(cls, sigmas, at, step, sigma, percent, boundary, calls, model=None, sampler=None) -> io.NodeOutput:
        with named("Split Sigmas (Stepwise)"):
            values = given(sigmas)
            check_sigmas(VE, values)
            if at == "sigma":
                step = first_not_above(values, sigma)
            elif at == "percent":
                step = first_not_above(values, sampling_of(wired(model, "model", at)).percent_to_sigma(percent))
            elif at == "hand-over":
                step = first_below(values, hand_over(trained_of(sampling_of(wired(model, "model", at))), boundary))
            elif at == "model calls":
                step = step_of_calls(known_plan(wired(sampler, "sampler", at), values, model), calls)
            high, low = split_at(values, step, {"hand-over": "boundary", "model calls": "calls"}.get(at, at))
            return io.NodeOutput(torch.tensor(high), torch.tensor(low), step)


def wired(value: Any, name: str, at: str) -> Any:
    if value is None:
        raise InputError(name, f"is not wired, and cutting at {at} needs it", f"wire the {name} of the run")
    return value


def known_plan(sampler: Any, sigmas: tuple[float, ...], model: Any) -> Plan:
    """What a SAMPLER of ours does on `sigmas`, on the path of the model if there is one."""
    if not isinstance(sampler, PlanSampler):
        cure = "wire a Stepwise Sampler node"
        raise InputError("sampler", "is not one of Stepwise, so its model calls are not known", cure)
    sampling = None if model is None else sampling_of(model)
    path, limits = (VE, OWN_LIMITS) if sampling is None else (path_of(sampling), Limits.of(sampling, sampler.params))
    return make_plan(sampler.solver, sampler.params, path, sigmas, limits=limits)


class StepwiseJoinSigmas(io.ComfyNode):
    """Two schedules as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseJoinSigmas",
            display_name="Join Sigmas (Stepwise)",
            category=CATEGORY,
            description="Puts two schedules together that meet at one noise level, and says so where they do not meet.",
            search_aliases=["concatenate", "merge", "append", "stepwise"],
            inputs=[
                io.Sigmas.Input("high_sigmas", tooltip="The first part."),
                io.Sigmas.Input("low_sigmas", tooltip="The second part; it begins where the first one ends."),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="Both, the level where they meet once.")],
        )

    @classmethod
    def execute(cls, high_sigmas, low_sigmas) -> io.NodeOutput:
        with named("Join Sigmas (Stepwise)"):
            values = joined(read_sigmas(high_sigmas, "high_sigmas"), read_sigmas(low_sigmas, "low_sigmas"))
            check_sigmas(VE, values)
            return io.NodeOutput(torch.tensor(values))


class StepwiseReverseSigmas(io.ComfyNode):
    """A schedule upwards, for samplers that take a picture back to noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseReverseSigmas",
            display_name="Reverse Sigmas (Stepwise)",
            category=CATEGORY,
            description="Turns a schedule round, for samplers that turn a picture back into noise.",
            search_aliases=["flip", "invert", "unsample", "inversion", "stepwise"],
            inputs=[
                io.Sigmas.Input("sigmas", tooltip=SIGMAS),
                io.Float.Input(
                    "lowest",
                    default=0.0001,
                    min=0.0,
                    max=1.0,
                    step=0.0001,
                    round=False,
                    tooltip="Stands in the place of 0, where samplers of other packs cannot begin. 0 leaves it, "
                    "for those of Stepwise.",
                ),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The noise levels in ascending order.")],
        )

    @classmethod
    def execute(cls, sigmas, lowest) -> io.NodeOutput:
        with named("Reverse Sigmas (Stepwise)"):
            values = given(sigmas)
            above = min((sigma for sigma in values if sigma > 0.0), default=lowest)
            if 0.0 in values and lowest >= above > 0.0:
                problem = f"is {lowest:g}, not below the lowest noise level above 0, {above:g}"
                raise InputError("lowest", problem, "lower it")
            return io.NodeOutput(torch.tensor(reversed_sigmas(values, lowest)))


class StepwiseScaleSigmas(io.ComfyNode):
    """Every noise level times a factor."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseScaleSigmas",
            display_name="Scale Sigmas (Stepwise)",
            category=CATEGORY,
            description="Multiplies every noise level of a schedule by a factor; 0 stays 0.",
            search_aliases=["multiply", "sigma multiplier", "stepwise"],
            inputs=[
                io.Sigmas.Input("sigmas", tooltip=SIGMAS),
                io.Float.Input(
                    "factor",
                    default=1.0,
                    min=0.001,
                    max=1000.0,
                    step=0.001,
                    round=False,
                    tooltip="Below 1 the run begins with less noise, above 1 with more than the schedule had.",
                ),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The noise levels times factor.")],
        )

    @classmethod
    def execute(cls, sigmas, factor) -> io.NodeOutput:
        with named("Scale Sigmas (Stepwise)"):
            return io.NodeOutput(torch.tensor(scaled(given(sigmas), factor)))


class StepwiseSetFirstSigma(io.ComfyNode):
    """A schedule that begins at another level."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseSetFirstSigma",
            display_name="Set First Sigma (Stepwise)",
            category=CATEGORY,
            description="Puts another noise level in the place of the first; all others stay.",
            search_aliases=["first sigma", "start sigma", "sigma max", "stepwise"],
            inputs=[
                io.Sigmas.Input("sigmas", tooltip=SIGMAS),
                io.Float.Input(
                    "sigma",
                    default=136.0,
                    min=0.0,
                    max=20000.0,
                    step=0.001,
                    round=False,
                    tooltip="Where the run begins, above the level that its first step goes to.",
                ),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The same noise levels, the first one as set.")],
        )

    @classmethod
    def execute(cls, sigmas, sigma) -> io.NodeOutput:
        with named("Set First Sigma (Stepwise)"):
            return io.NodeOutput(torch.tensor(with_first(given(sigmas), sigma)))


class StepwiseResampleSigmas(io.ComfyNode):
    """The same range in another number of steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseResampleSigmas",
            display_name="Resample Sigmas (Stepwise)",
            category=CATEGORY,
            description="The same schedule in another number of steps: same ends, same shape, log-linear in between.",
            search_aliases=["interpolate", "number of steps", "extend", "stepwise"],
            inputs=[
                io.Sigmas.Input("sigmas", tooltip=SIGMAS),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Number of steps, exactly."),
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="As many steps as asked for, over the same range.")],
        )

    @classmethod
    def execute(cls, sigmas, steps) -> io.NodeOutput:
        with named("Resample Sigmas (Stepwise)"):
            values = given(sigmas)
            check_sigmas(VE, values)
            return io.NodeOutput(torch.tensor(resampled(values, steps)))


class StepwiseParseSigmas(io.ComfyNode):
    """SIGMAS from text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseParseSigmas",
            display_name="Parse Sigmas (Stepwise)",
            category=CATEGORY,
            description="Reads noise levels from text: numbers such as 14.6, .5 or 1e-3, with commas, spaces or lines "
            "between them.",
            search_aliases=["manual sigmas", "custom sigmas", "text", "string", "stepwise"],
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default="14.6, 6.5, 3.9, 2.7, 1.9, 1.4, 0.96, 0.65, 0.4, 0.15, 0",
                    tooltip="The noise levels in the order of the run. What follows a # is a comment.",
                )
            ],
            outputs=[io.Sigmas.Output("sigmas", tooltip="The numbers as they stand.")],
        )

    @classmethod
    def execute(cls, text) -> io.NodeOutput:
        with named("Parse Sigmas (Stepwise)"):
            return io.NodeOutput(torch.tensor(parsed(text)))


class StepwiseCheckSigmas(io.ComfyNode):
    """What is wrong with a schedule, and what is worth knowing about it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseCheckSigmas",
            display_name="Check Sigmas (Stepwise)",
            category=CATEGORY,
            description="Looks a schedule over, from any pack, and lets it through only when a sampler can run on it.",
            search_aliases=["validate", "debug", "preview sigmas", "stepwise"],
            inputs=[
                io.Sigmas.Input("sigmas", tooltip=SIGMAS),
                io.Model.Input("model", optional=True, tooltip="When wired, the schedule is held against its range."),
                io.Sampler.Input(
                    "sampler",
                    optional=True,
                    tooltip="A Stepwise SAMPLER: whether it takes the schedule, and how often it calls the model.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(
                    "sigmas", tooltip="The schedule, when it is sound. Otherwise nothing goes on from here."
                ),
                io.String.Output("report", tooltip="Every finding: where, what, and the cure."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, sigmas, model=None, sampler=None) -> io.NodeOutput:
        with named("Check Sigmas (Stepwise)"):
            values, found = looked_over(sigmas, model)
        fault = next((str(each) for each in found if each.fatal), None)
        lines = ["not sound" if fault else f"{described(values)}: sound", *map(str, found)]
        if sampler is not None and not fault:
            calls, fault = calls_of(sampler, values, model)
            lines = [f"{lines[0]}, {calls}", *([fault] if fault else []), *lines[1:]]
        report = "\n".join(lines)
        if fault:
            passed = ExecutionBlocker(f"Check Sigmas (Stepwise): {fault}")
        else:
            passed = sigmas if torch.is_tensor(sigmas) and sigmas.ndim == 1 else torch.tensor(values)
        return io.NodeOutput(passed, report, ui=ui.PreviewText(report))


def described(values: tuple[float, ...]) -> str:
    ends = "" if not values else f", {values[0]:g} to {values[-1]:g}" if values[1:] else f" at {values[0]:g}"
    return f"{counted(max(len(values) - 1, 0), 'step')}{ends}"


def calls_of(sampler: Any, sigmas: tuple[float, ...], model: Any) -> tuple[str, str | None]:
    """How often a SAMPLER calls the model on sound `sigmas`; and why not, where it refuses them."""
    if not isinstance(sampler, PlanSampler):
        return "model calls not known, since this SAMPLER is not one of Stepwise", None
    name = sampler.solver.name
    try:
        return f"{counted(len(known_plan(sampler, sigmas, model).stages), 'model call')} of {name}", None
    except InputError as error:
        return f"but not for {name}", f"{name}: {error}"


def looked_over(sigmas: Any, model: Any) -> tuple[tuple[float, ...], list[Notice]]:
    """The levels of a SIGMAS socket, and all that there is to say about them."""
    try:
        values = read_sigmas(sigmas)
    except InputError as error:
        return (), [Notice(error.index, error.problem, error.cure)]
    path = VE if model is None else path_of(sampling_of(model))
    values = snapped(path, values)
    if found := list(faults(path, values, fewest=0, upwards=True)):
        return values, found
    trained = None if model is None else trained_of(sampling_of(model))
    return values, list(remarks(values, trained, rounding_of(sigmas)))


NODES = [
    StepwiseSplitSigmas,
    StepwiseJoinSigmas,
    StepwiseReverseSigmas,
    StepwiseScaleSigmas,
    StepwiseSetFirstSigma,
    StepwiseResampleSigmas,
    StepwiseParseSigmas,
    StepwiseCheckSigmas,
]
