"""Inputs and outputs that several nodes have."""

from collections.abc import Mapping
from copy import copy
from inspect import signature
from typing import Any

from comfy_api.latest import io

from ...samplers.parameters import InputError
from ...samplers.registry import Schedule
from ...samplers.schedules import karras, trained_sigmas
from .schema import StateType, from_socket, later_last, widgets


def required(declared: io.Input) -> io.Input:
    """The same input, for a node that had it from its first day."""
    same = copy(declared)
    same.optional = False
    return same


def growing(name: str, socket: io.Input, most: int, tooltip: str) -> io.Input:
    """At least one of a socket and at most so many: `name.socket_1`, `name.socket_2` and on."""
    template = io.Autogrow.TemplateNames(socket, names=[f"{socket.id}_{i}" for i in range(1, most + 1)], min=1)
    told = f"{tooltip} Each wire brings up a free socket for the next."
    return io.Autogrow.Input(name, template=template, tooltip=told)


STEP_INPUTS = (
    io.Guider.Input("guider", tooltip="Model and prompts, for example from CFG Guider (Stepwise)."),
    io.Noise.Input(
        "noise",
        optional=True,
        tooltip="Starting noise. Not needed when a state is wired, whose seed counts. To stop and go on without the "
        "first part running anew, set its seed to fixed.",
    ),
    io.Latent.Input("latent_image", optional=True, tooltip="What to begin from. Not needed when a state is wired."),
    io.Sigmas.Input("sigmas", optional=True, tooltip="The full schedule, also when only a part of it is run."),
    StateType.Input("state", optional=True, tooltip="Go on from where another step node stopped."),
)
NOISE_INPUTS = (
    io.Combo.Input(
        "noise_kind",
        options=["independent", "brownian"],
        tooltip="independent: new noise at every step. brownian: one path of noise per image, the same for every "
        "schedule, so that more steps refine the picture instead of changing it; it costs about 8 draws for one.",
        advanced=True,
    ),
    io.Combo.Input(
        "noise_device",
        options=["cpu", "gpu"],
        tooltip="Where the sampler's own noise is drawn. On the CPU a picture is the same on every machine.",
        advanced=True,
    ),
)
WINDOW_INPUTS = (
    io.Int.Input(
        "start_step", default=0, min=0, max=10000, advanced=True, tooltip="First step of the schedule to take."
    ),
    io.Int.Input(
        "end_step",
        default=10000,
        min=1,
        max=10000,
        tooltip="Stop after this many steps of the schedule; the state then goes on from there.",
    ),
    io.Int.Input(
        "autosave_every",
        optional=True,
        advanced=True,
        default=0,
        min=0,
        max=10000,
        tooltip="Save the state to ComfyUI's output folder after every so many steps, and on Cancel; 0 never.",
    ),
    io.Combo.Input(
        "on_mismatch",
        optional=True,
        advanced=True,
        options=["error", "fork", "strict"],
        tooltip="When solver, parameters or schedule are not those of the wired state: error stops, fork goes on from "
        "where the state stands and says what it dropped. The state's seed counts: with fork that of a wired noise "
        "from here on, and strict stops for another one.",
    ),
)
# Of the whole schedule, as every schedule declares them.
STEPS_INPUTS = tuple(required(each) for each in widgets(karras, ("steps", "denoise")))
HIDDEN = (io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo)
STEP_OUTPUTS = (
    io.Latent.Output("output", tooltip="The latent where the run stopped."),
    io.Latent.Output("denoised_output", tooltip="The model's last prediction of the clean latent."),
    StateType.Output("state", tooltip="Everything that the rest of the run needs."),
)


def schedule_widgets(schedule: Schedule) -> list[io.Input]:
    """The widgets of the schedule, of the trained betas where it takes a table, and of the curve where it is drawn."""
    made = widgets(schedule.function)
    if "shape" in signature(schedule.function).parameters:
        tooltip = "Log sigma over the step: 1 is sigma_max, 0 is sigma_min. It has to fall everywhere."
        made.insert(1, io.Curve.Input("curve", default=[(0.0, 1.0), (1.0, 0.0)], tooltip=tooltip))
    if "table" in schedule.takes:
        made += widgets(trained_sigmas)
    for each in made:
        if each.id in schedule.answered:
            each.extra_dict |= from_socket("model")
        if each.id == schedule.counts:
            each.extra_dict |= from_socket("latent")
    return later_last(made)


def chosen(name: str, known: Mapping[str, Any], value: Any) -> tuple[Any, dict[str, Any]]:
    """What a dynamic choice names, and the settings that came with it; what did not come has its default."""
    given = dict(value) if isinstance(value, dict) else {name: value}
    key = given.pop(name, None)
    if not isinstance(key, str) or key not in known:
        raise InputError(name, f"is {key!r}", f"choose one of {', '.join(known)}")
    return known[key], {each: setting for each, setting in given.items() if setting is not None}
