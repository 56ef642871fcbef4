"""Runs whose steps are as long as each image allows: one image after the other, a step of the schedule at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.model_management
import torch
from torch import Tensor
from tqdm.auto import trange

from ...samplers import Plan, State
from ...samplers.adaptive import Controller, NotFinite, Undo, step_taken
from ...samplers.parameters import InputError
from ...samplers.plan import NoiseSource, Pace, ascends
from .onlooker import Moment, Onlooker, Step
from .patch_memory import PatchMemory, Remembered
from .progress import Progress
from .single_images import conditioned_as, model_of_image, of_image


class EachMemory:
    """What patches of others remember, as `carried` finds it, image by image. In a state the names begin with the
    number of the image, where there are several."""

    def __init__(self, carried: PatchMemory, values: Mapping[str, Any], images: int, place: torch.device):
        self.carried, self.place = carried, place
        self.values = [dict(values)] if images == 1 else [numbered(values, f"{image} ") for image in range(images)]

    @contextmanager
    def lent(self, image: int) -> Iterator[None]:
        with self.carried.lent(self.values[image], self.place):
            yield
            self.values[image] = self.carried.now().on_cpu()

    def now(self) -> Remembered:
        if len(self.values) == 1:
            return Remembered(dict(self.values[0]))
        each = enumerate(self.values)
        return Remembered({f"{image} {name}": value for image, values in each for name, value in values.items()})


def numbered(values: Mapping[str, Any], number: str) -> dict[str, Any]:
    return {name.removeprefix(number): value for name, value in values.items() if name.startswith(number)}


@dataclass
class AdaptiveRun:
    """A run of `plan` by a controller, on the host's `model(x, sigma, **extra_args)`.

    noises: what each image adds on the way. `memory` of the guidance is kept image by image, and is as it was before an
    attempt that is rejected.
    """

    name: str
    controller: Controller
    plan: Plan
    model: Any
    noises: Sequence[NoiseSource]
    extra_args: Mapping[str, Any]
    progress: Progress
    onlooker: "EachImage | None" = None
    patches: EachMemory | None = None
    memories: list[dict[str, Tensor]] = field(default_factory=list)

    def solve(
        self,
        state: State,
        report: Callable[[int, State], None],
        *,
        first: int = 0,
        stop_step: int | None = None,
        rests: int,
        disable: Any = None,
    ) -> State:
        """The steps of the schedule from `first` to `stop_step`; in the first `rests` x stays as it is."""
        plan, images = self.plan, len(state.x)
        self.extra_args = self.progress.shown_to(self.extra_args)
        self.memories = parted(self.progress.memory, images)
        if len(state.paces) != images:
            state = replace(state, paces=(self.controller.begin(plan.sigmas[first]),) * images)
        last = plan.steps if stop_step is None else min(stop_step, plan.steps)
        for step in trange(first, last, disable=disable):
            if step < rests:
                paces = tuple(replace(pace, level=plan.sigmas[step + 1]) for pace in state.paces)
                state = replace(state, denoised=state.x, paces=paces)
            else:
                state = joined([self.taken(step, self.image_of(state, i), i, images) for i in range(images)])
            state = replace(state, index=plan.first_stage(step + 1))
            self.progress.memory = together(self.memories)
            report(step, state)
        return state

    def remembered(self) -> Remembered:
        return Remembered() if self.patches is None else self.patches.now()

    def image_of(self, state: State, image: int) -> State:
        registers = {name: value[image : image + 1] for name, value in state.registers.items()}
        denoised = None if state.denoised is None else state.denoised[image : image + 1]
        return State(registers, state.index, denoised, (state.paces[image],))

    def taken(self, step: int, state: State, image: int, images: int) -> State:
        progress, plan = self.progress, self.plan
        progress.step, progress.level = progress.before + step, plan.sigmas[step]
        progress.upwards, progress.memory = ascends(plan.sigmas), self.memories[image]
        if self.onlooker is not None:
            self.onlooker.image = image
        model = model_of_image(self.model, image, images)
        mask = of_image(self.extra_args.get("denoise_mask"), image, images)
        given = {**self.extra_args, **({"denoise_mask": mask} if "denoise_mask" in self.extra_args else {})}

        def denoiser(x: Tensor, sigma: float) -> Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.sigma = sigma
            found = model(x, x.new_full((len(x),), sigma), **given)
            progress.first, progress.stage = False, progress.stage + 1
            return found

        def remember() -> Undo:
            progress.first, before = True, dict(progress.memory)

            def undo() -> None:
                progress.memory = before

            return undo

        try:
            memory = nullcontext() if self.patches is None else self.patches.lent(image)
            with conditioned_as(self.model.inner_model, image, images), memory:
                state, pace = step_taken(
                    self.controller, plan, step, denoiser, state, state.paces[0], self.noises[image], remember
                )
        except NotFinite as error:
            place = f", image {image} of 0 to {images - 1}" if images > 1 else ""
            raise ValueError(
                f"{self.name}: the model's output is not finite at step {step + 1} of {plan.steps}, sigma "
                f"{error.sigma:.6g}{place}. Run the model in a wider number format (start ComfyUI with --force-fp32 to "
                f"see whether that is it), or take DPM-Solver to see which prediction it is"
            ) from None
        except InputError as error:
            raise ValueError(f"{self.name}: {error}") from None
        self.memories[image] = dict(progress.memory)
        return replace(state, paces=(pace,))


def joined(states: Sequence[State]) -> State:
    """The states of the images of a batch, as one."""
    first, *rest = states
    if not rest:
        return first
    names = [name for name in first.registers if all(name in each.registers for each in rest)]
    registers = {name: torch.cat([each.registers[name] for each in states]) for name in names}
    denoised = [each.denoised for each in states if each.denoised is not None]
    whole = torch.cat(denoised) if len(denoised) == len(states) else None
    return State(registers, first.index, whole, tuple(pace for each in states for pace in each.paces))


def parted(memory: Mapping[str, Tensor], images: int) -> list[dict[str, Tensor]]:
    return [{name: of_image(value, image, images) for name, value in memory.items()} for image in range(images)]


def together(memories: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    first, *rest = memories
    names = [name for name in first if all(name in each for each in rest)]
    return {name: torch.cat([each[name] for each in memories]) if rest else first[name] for name in names}


def calls_between(before: Sequence[Pace], after: Sequence[Pace]) -> int:
    """The model calls of the image that took the most."""
    return max(b.calls - (a.calls if before else 0) for a, b in zip(before or after, after, strict=True))


class EachImage:
    """Stands for an onlooker of a run that goes image by image: what it is told of the images one after the other it
    tells `onlooker` of the batch, of each the prediction with which it began the step."""

    def __init__(self, onlooker: Onlooker):
        self.onlooker, self.image, self.seen = onlooker, 0, dict[str, dict[int, Tensor]]()

    def begins(self, x: Tensor, at: Moment) -> None:
        self.onlooker.begins(x, at)

    def predicted(self, name: str, value: Tensor) -> None:
        self.seen.setdefault(name, {}).setdefault(self.image, value)

    def opened(self) -> None:
        self.onlooker.opened()

    def stepped(self, step: Step) -> None:
        for name, values in self.seen.items():
            if len(values) == len(step.x):
                self.onlooker.predicted(name, torch.cat([values[image] for image in sorted(values)]))
        self.seen = {}
        self.onlooker.stepped(step)
