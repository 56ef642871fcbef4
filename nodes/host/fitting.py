"""The host's guiders as what a plan is fitted on: runs of whole plans and of parts of them, batch after batch."""

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor

from ...samplers import Path, Plan, State, run
from ...samplers.fitting import Stopped
from ...samplers.parameters import InputError
from .denoiser import HostDenoiser
from .models import path_of, sampling_of
from .progress import Progress
from .sampler import resting_steps
from .transfer import state_on

NAME = "Fit Plan"


class Part(comfy.samplers.Sampler):
    """Calls of a plan, from a state on; `state` is where they led, and `watch` sees all on the way, on the CPU."""

    def __init__(self, plan: Plan, state: State, stop: int | None, watch: Callable[[State], None] | None):
        self.plan, self.state, self.stop, self.watch = plan, state, stop, watch

    @torch.no_grad()
    def sample(
        self, guider: Any, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ) -> Tensor:
        extra_args["denoise_mask"] = None
        model = comfy.samplers.KSamplerX0Inpaint(guider, sigmas)
        model.latent_image, model.noise = latent_image, noise
        progress = Progress()
        if resting_steps(guider, self.plan):
            problem = "leaves the picture as it is in the first steps, and a plan is fitted to what a model does there"
            raise InputError("guider", problem, "set zero_steps to 0, or leave the rule out")
        denoiser = HostDenoiser(NAME, self.plan, model, extra_args, progress, self.state.index)

        def note(state: State) -> None:
            if self.watch is not None:
                # Not what the solver remembers: all steps are kept until the last batch is done.
                seen = State({"x": state.x}, state.index, state.denoised)
                self.watch(state_on(seen, torch.device("cpu")))

        state = run(self.plan, denoiser, state_on(self.state, noise.device), stop=self.stop, watch=note)
        self.state = state_on(state, torch.device("cpu"))
        if progress.memory:
            problem = f"remembers {', '.join(sorted(progress.memory))} from call to call, and a fit runs parts of runs"
            raise InputError("guider", problem, "leave rules with a memory out, such as momentum")
        return state.x


class GuiderSubject:
    """A `Subject` of the fit: guiders, each with its own share of the starts.

    Batch number i of `batch` images is guider number i's, modulo their number; splits are multiples of the batch, so
    that an image always has the same prompt. No more than `copies` of a batch are ever on the device, one unless there
    is room for more, beside what ordinary sampling of them has there; all that the fit keeps lies on the CPU. `like`
    gives an empty latent of so many images, as the host takes it, and `noise` is that of all starts, packed.
    """

    def __init__(
        self,
        guiders: Sequence[Any],
        noise: Tensor,
        like: Callable[[int], Any],
        sigma: float,
        batch: int,
        copies: int = 1,
    ):
        self.guiders, self.batch, self.like, self.copies = guiders, batch, like, copies
        sampling = sampling_of(guiders[0].model_patcher)
        self.path: Path = path_of(sampling)
        table = getattr(sampling, "sigma_min", None)
        self.sigma_min = 0.0 if table is None else float(table)
        highest = sigma >= float(sampling.sigma_max) * (1.0 - 1e-5)
        # The host's sampling lies on its own device.
        self.starts: Tensor = scaled(sampling, sigma, noise, highest)

    def run(
        self,
        plan: Plan,
        state: State,
        images: slice,
        stop: int | None = None,
        watch: Callable[[State], None] | None = None,
    ) -> State:
        states, seen = list[State](), dict[int, list[State]]()

        def note(found: State) -> None:
            seen.setdefault(found.index, []).append(found)

        places = self.places(images, len(state.x))
        for number, place in places:
            part = Part(plan, cut(state, place), stop, note if watch is not None else None)
            try:
                self.sample(self.guiders[number % len(self.guiders)], part)
            except comfy.model_management.InterruptProcessingException:
                raise Stopped("Cancel") from None
            states.append(part.state)
        back = torch.cat([place for _, place in places]).argsort()
        if watch is not None:
            for index in sorted(seen):
                watch(joined(seen.pop(index), back))
        return joined(states, back)

    def places(self, images: slice, several: int) -> list[tuple[int, Tensor]]:
        """Which of `several` images, copies of `images`, one after another, are computed at once: the number of their
        batch, and where they stand."""
        every, found = torch.arange(several).view(-1, images.stop - images.start), list[tuple[int, Tensor]]()
        for first in range(images.start, images.stop, self.batch):
            batch = every[:, first - images.start : min(first + self.batch, images.stop) - images.start]
            found += [(first // self.batch, some.flatten()) for some in batch.split(self.copies)]
        return found

    def sample(self, guider: Any, part: Part) -> None:
        nothing = self.like(len(part.state.x))
        guider.sample(nothing, nothing, part, torch.tensor(part.plan.sigmas), disable_pbar=True, seed=0)


def scaled(sampling: Any, sigma: float, noise: Tensor, highest: bool) -> Tensor:
    device = getattr(sampling, "sigmas", noise).device
    noise = noise.to(device)
    return sampling.noise_scaling(torch.tensor(sigma, device=device), noise, torch.zeros_like(noise), highest).cpu()


def cut(state: State, place: Tensor) -> State:
    """The state of some of the images."""
    registers = {name: value[place] for name, value in state.registers.items()}
    return State(registers, state.index, None if state.denoised is None else state.denoised[place])


def joined(states: Sequence[State], back: Tensor) -> State:
    """One state of all images, where `back` says in which order."""
    if len(states) == 1:
        return states[0]
    registers = {name: torch.cat([each.registers[name] for each in states])[back] for name in states[0].registers}
    denoised = [each.denoised for each in states if each.denoised is not None]
    return State(registers, states[0].index, torch.cat(denoised)[back] if denoised else None)
