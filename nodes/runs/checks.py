"""What the parts of a state must be, and how they must agree, before a run goes on from it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...samplers import Path, State, checkpoint
from ...samplers.checkpoint import DAMAGED
from ...samplers.noise import SEEDS
from ...samplers.parameters import InputError, counted, quoted
from ...samplers.plan import Pace
from ...samplers.registry import FITTED, SOLVERS, Solver
from ...samplers.schedules.checks import check_sigmas
from ..host.latents import packed
from ..host.plain_values import is_sound
from ..host.sampler import make_plan
from ..host.seeds import NOISE_KINDS, component_sizes
from .held import HeldRun

# As many as the step nodes offer.
MOST_STEPS = 10_000
NOISE = {"noise_kind": tuple(NOISE_KINDS), "noise_device": ("cpu", "gpu")}

Check = Callable[[Any], bool]


def check_run(held: HeldRun) -> None:
    """Raises InputError unless every part of the state is of its kind, and all agree: schedule, place, registers,
    shapes."""
    for name, (good, wanted) in FIELDS.items():
        if not good(value := getattr(held, name)):
            shown = quoted(value) if is_value(value) else f"of the type {type(value).__name__}"
            raise InputError(name, f"is {shown}, not {wanted}", DAMAGED)
    check_sigmas(held.path, held.sigmas, fewest=0, upwards=True)
    solver = next((solver for solver in (*SOLVERS, FITTED) if solver.name == held.solver), None)
    if solver is None:
        raise InputError("solver", f"is {held.solver}, which this Stepwise does not have", DAMAGED)
    if not 0 <= held.start_step <= held.solver_step <= held.step <= held.steps:
        problem = f"is {held.step}, of a run from {held.start_step} to {held.steps}"
        raise InputError("step", problem, DAMAGED)
    check_shapes(held)
    check_plan(held, solver)


def check_shapes(held: HeldRun) -> None:
    shape = packed_shape(held.latent["samples"])
    for what, tensor in (("noise", held.noise), ("denoised", held.denoised)):
        if packed_shape(tensor) != shape:
            raise InputError(what, f"has another shape than the latent, {packed_shape(tensor)}", DAMAGED)
    if held.level and not all(pace.level for pace in held.state.paces):
        raise InputError("state", f"has an image at noise level 0, and stands at {held.level:g}", DAMAGED)
    if "x" not in held.state.registers:
        raise InputError("state", "lacks the register x", DAMAGED)
    for what, tensor in (("x", held.state.x), ("state.denoised", held.state.denoised)):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise InputError(what, f"has the shape {tuple(tensor.shape)}, and the latent {shape}", DAMAGED)
    for what, seeds in (("seeds", held.seeds), ("variation_seeds", held.variation_seeds)):
        if len(seeds) != shape[0] and (what == "seeds" or held.variation_strength):
            raise InputError(what, f"has {counted(len(seeds), 'number')} for {counted(shape[0], 'image')}", DAMAGED)
    # Guidance remembers predictions, each component of a packed latent by itself.
    shapes = {shape, *((*shape[:-1], size) for size in component_sizes(held.latent["samples"]))}
    for name, tensor in held.memory.items():
        if tuple(tensor.shape) not in shapes:
            raise InputError("memory", f"holds {name!r} of the shape {tuple(tensor.shape)}", DAMAGED)


def check_plan(held: HeldRun, solver: Solver) -> None:
    for name, value in held.params.items():
        known = solver.parameters.get(name)
        if not (value in NOISE.get(name, ()) if known is None else is_of(known.kind)(value)):
            raise InputError(name, f"is {value!r}", DAMAGED)
    params = {name: value for name, value in held.params.items() if name in solver.parameters}
    try:
        plan = make_plan(solver, params, held.path, held.sigmas[held.solver_step :], True, limits=held.limits)
    except InputError:
        raise
    except (ArithmeticError, IndexError, ValueError) as error:
        raise InputError("sigmas", f"allows no plan ({error})", DAMAGED) from None
    # A state of another version has a plan of its own; it is told when the run goes on.
    if checkpoint.fingerprint(plan) == held.plan:
        checkpoint.check_state(plan, held.state, "state")
        if plan.first_stage(held.step - held.solver_step) != held.state.index:
            done = f"{counted(held.state.index, 'model call')} {'is' if held.state.index == 1 else 'are'} done"
            raise InputError("step", f"is {held.step}, and {done}", DAMAGED)


def packed_shape(samples: Any) -> tuple[int, ...]:
    return tuple(packed(samples).shape)


def is_of(kind: type) -> Check:
    """A number of the kind, and no other: True is no 1, though 1 will do for 1.0."""
    kinds = (float, int) if kind is float else (kind,)
    return lambda value: type(value) in kinds


def is_within(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def all_of(check: Check, kind: type = tuple) -> Check:
    return lambda value: isinstance(value, kind) and all(map(check, value))


def named_by(check: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and all(map(check, value.values()))


def is_picture(value: Any) -> bool:
    """A latent: numbers with a fraction, of at least one image."""
    parts = value.unbind() if isinstance(value, NestedTensor) else [value]
    return bool(parts) and all(is_floating(part) and part.ndim > 1 and len(part) for part in parts)


def is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def is_latent(value: Any) -> bool:
    if not isinstance(value, Mapping) or not is_picture(value.get("samples")):
        return False
    mask, index = value.get("noise_mask"), value.get("batch_index")
    images = len(next(iter(value["samples"].unbind())) if value["samples"].is_nested else value["samples"])
    index = index.tolist() if isinstance(index, Tensor) else index
    fits = index is None or (isinstance(index, list | tuple) and all(map(is_of(int), index)) and len(index) == images)
    return fits and (mask is None or isinstance(mask, Tensor | NestedTensor))


def is_state(value: Any) -> bool:
    if not isinstance(value, State) or not is_within(0, 100 * MOST_STEPS)(value.index):
        return False
    if not named_by(lambda each: isinstance(each, Tensor))(value.registers):
        return False
    x = value.registers.get("x")
    images = 0 if x is None or x.ndim == 0 else len(x)
    if not all_of(is_pace)(value.paces) or len(value.paces) not in (0, images):
        return False
    return value.denoised is None or is_floating(value.denoised)


def is_pace(value: Any) -> bool:
    """How far an image has come, in numbers that a run can go on from."""
    if not isinstance(value, Pace) or not is_level(value.level) or not is_level(value.h) or value.h == 0.0:
        return False
    counts = all(map(is_within(0, 2**31), (value.accepted, value.rejected, value.calls)))
    return counts and all_of(is_level)(value.errors) and len(value.errors) in (0, 2)


def is_model(value: Any) -> bool:
    texts = ("latent", "model", "sampling", "others")
    named = named_by(is_value)(value) and all(isinstance(value.get(name, ""), str) for name in texts)
    return named and is_of(int)(value.get("channels", 0))


def is_value(value: Any) -> bool:
    return type(value) in (bool, int, float, str)


STEP, SEED = is_within(0, MOST_STEPS), is_within(0, SEEDS - 1)


# What each field is, and how a message says it.
def is_level(value: Any) -> bool:
    return is_of(float)(value) and math.isfinite(value) and value >= 0.0


FIELDS: Mapping[str, tuple[Check, str]] = {
    "solver": (is_of(str), "a name"),
    "params": (named_by(is_value), "numbers and words by name"),
    "path": (is_of(Path), "VE or FLOW"),
    "sigmas": (
        lambda value: all_of(is_of(float))(value) and len(value) <= MOST_STEPS + 1,
        f"at most {MOST_STEPS + 1} numbers",
    ),
    **dict.fromkeys(("start_step", "solver_step", "step"), (STEP, f"a number of steps from 0 to {MOST_STEPS}")),
    "noise": (is_picture, "a latent"),
    "latent": (is_latent, "a LATENT"),
    "denoised": (is_picture, "a latent"),
    "seed": (SEED, "a whole number from 0 to 2^64 - 1"),
    "seeds": (all_of(SEED), "whole numbers from 0 to 2^64 - 1"),
    "variation_seeds": (all_of(SEED), "whole numbers from 0 to 2^64 - 1"),
    "variation_strength": (
        lambda value: is_of(float)(value) and math.isfinite(value) and 0.0 <= value <= 1.0,
        "a number from 0 to 1",
    ),
    "state": (is_state, "the state of a solver"),
    "memory": (named_by(is_floating), "predictions by name"),
    "plan": (is_of(str), "a fingerprint"),
    "model": (is_model, "what a model is called"),
    "batching": (all_of(all_of(is_within(0, 2**31))), "groups of numbers"),
    "patches": (named_by(is_sound), "numbers, text and tensors by name"),
    "forgotten": (all_of(is_of(str)), "names"),
    "highest": (is_level, "a noise level, or 0"),
    **dict.fromkeys(("below", "core_from", "core_to"), (is_level, "a noise level, or 0")),
    "warm_up": (is_of(bool), "true or false"),
}
