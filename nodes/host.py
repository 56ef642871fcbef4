"""The adapter to ComfyUI: its models as paths and tables, our plans as its SAMPLER objects.

Nothing here goes around the host: the guider calls the model, the inpaint wrapper applies masks, and the callback
draws previews and carries Cancel, as for the host's own samplers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch
from tqdm.auto import trange

from ..samplers import FLOW, VE, Path, Plan, State, run, start
from ..samplers.checks import check_sigmas
from ..samplers.parameters import InputError, Value, checked
from ..samplers.plan import NoiseSource
from ..samplers.registry import Solver
from ..samplers.trained import Trained
from .batching import BatchingWatch
from .carried import PatchMemory, warn_of_what_forgets
from .denoiser import HostDenoiser
from .finite import FiniteCheck
from .noise import ImageSeeds, in_sampler_noise, packed_sizes
from .progress import Progress
from .state import Batching


def path_of(model_sampling: Any) -> Path:
    """FLOW for the host's CONST family, VE for all others: they are sampled in k-diffusion's scaling."""
    return FLOW if isinstance(model_sampling, comfy.model_sampling.CONST) else VE


def sampling_of(model_patcher: Any) -> Any:
    return model_patcher.get_model_object("model_sampling")


def family_of(model_patcher: Any) -> dict[str, Value]:
    """What must agree between the models of one run (the meaning of their latents), and their names."""
    form = model_patcher.get_model_object("latent_format")
    return {
        "latent": type(form).__name__,
        "channels": form.latent_channels,
        "model": type(model_patcher.model).__name__,
        "sampling": sampling_name(sampling_of(model_patcher)),
    }


def sampling_name(model_sampling: Any) -> str:
    """The host's names for a model's noise levels and its prediction, which it puts together anew for every model."""
    bases = [base.__name__ for base in type(model_sampling).__mro__ if base.__module__ == comfy.model_sampling.__name__]
    return " ".join(bases)


def trained_of(model_sampling: Any) -> Trained:
    """The noise levels that a model was trained on; raises InputError for a model that has no table of them."""
    table = getattr(model_sampling, "sigmas", None)
    if table is None:
        cure = "leave it unwired, and set the noise levels by the widgets"
        raise InputError("model", "has no table of trained noise levels", cure)
    shift = float(getattr(model_sampling, "shift", 1.0))
    if isinstance(model_sampling, comfy.model_sampling.ModelSamplingFlux):
        shift = math.exp(shift)
    return Trained(path_of(model_sampling), tuple(table.tolist()), shift)


def make_plan(solver: Solver, params: Mapping[str, Value], path: Path, sigmas: Sequence[float]) -> Plan:
    """The plan, with every input checked first."""
    check_sigmas(path, sigmas)
    return solver.plan(path, tuple(sigmas), **checked(solver.plan, params))


def solve(
    name: str,
    plan: Plan,
    model: Any,
    state: State,
    noise: NoiseSource,
    extra_args: Mapping[str, Any],
    report: Callable[[int, State], None],
    *,
    progress: Progress | None = None,
    stop_step: int | None = None,
    disable: bool | None = None,
) -> State:
    """Runs `plan` on the host's `model(x, sigma, **extra_args)`, a step at a time, up to `stop_step`."""
    denoiser = HostDenoiser(name, plan, model, extra_args, progress or Progress(), state.index)
    finite = FiniteCheck(denoiser, state)
    first = plan.stages[state.index].step if state.index < len(plan.stages) else plan.steps
    last = plan.steps if stop_step is None else min(stop_step, plan.steps)
    for step in trange(first, last, disable=disable):
        state = run(plan, finite, state, noise, stop=plan.first_stage(step + 1))
        report(step, state)
        finite.look(state, noise, final=step + 1 == last)
    return state


class PlanSampler(comfy.samplers.KSAMPLER):
    """A SAMPLER of ours: a solver and its parameters. It holds no run, so it can be shared and cached."""

    def __init__(
        self,
        solver: Solver,
        params: Mapping[str, Value],
        noise_device: str = "cpu",
        noise_kind: str = "independent",
    ):
        super().__init__(self.integrate)
        self.solver = solver
        self.params = checked(solver.plan, params)
        self.noise_device, self.noise_kind = noise_device, noise_kind

    @property
    def settings(self) -> dict[str, Value]:
        """All that decides what a run does: the parts of one run must agree in it."""
        ours = {"noise_kind": self.noise_kind, "noise_device": self.noise_device} if self.solver.stochastic else {}
        return {**self.params, **ours}

    def noise(
        self, seeds: ImageSeeds, like: torch.Tensor, model_sampling: Any, components: Sequence[int] = ()
    ) -> NoiseSource:
        """What this sampler adds to a batch `like` on the way."""
        path, place = path_of(model_sampling), like.device if self.noise_device == "gpu" else torch.device("cpu")
        scale = float(getattr(model_sampling, "noise_scale", 1.0)) if path is FLOW else 1.0
        return in_sampler_noise(self.noise_kind, path, seeds, place, scale, components)

    @torch.no_grad()
    def integrate(
        self, model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args=None, callback=None, disable=None
    ) -> torch.Tensor:
        """The host's sampler function: x comes noised, and the result goes back to its guider."""
        extra_args = extra_args or {}
        sampling = sampling_of(model.inner_model.model_patcher)
        try:
            plan = make_plan(self.solver, self.params, path_of(sampling), sigmas.tolist())
        except InputError as error:
            raise ValueError(f"{self.solver.name} Sampler: {error}") from None

        def report(step: int, state: State) -> None:
            if callback is not None:
                sigma = sigmas[step]
                callback({"i": step, "x": state.x, "denoised": state.denoised, "sigma": sigma, "sigma_hat": sigma})

        seeds = ImageSeeds.counted(extra_args.get("seed") or 0, len(x))
        noise = self.noise(seeds, x, sampling, packed_sizes(model.inner_model))
        return solve(self.solver.name, plan, model, start(x), noise, extra_args, report, disable=disable).x


class PlanRun(comfy.samplers.Sampler):
    """One run of a plan, from its beginning or from a state, up to a step; afterwards `state` holds where it stands,
    `step` the steps of the plan that are done, `memory` what the guidance remembers there, `patches` what those of
    others do, and `batching` how the host grouped the prompts of the last model call.

    The guider must be given the full schedule and the original noise, latent and mask for every part of a run, so that
    whatever looks at them sees what it would in one go. `before` counts its steps that lie before the plan's own.
    """

    def __init__(
        self,
        sampler: PlanSampler,
        plan: Plan,
        state: State | None,
        stop_step: int,
        memory: Mapping[str, torch.Tensor] = MappingProxyType({}),
        *,
        seeds: ImageSeeds,
        components: Sequence[int] = (),
        before: int = 0,
        batching: Batching = (),
        patches: Mapping[str, Any] = MappingProxyType({}),
        turn: Callable[[], None] = lambda: None,
    ):
        self.sampler, self.plan, self.state, self.stop_step, self.memory = sampler, plan, state, stop_step, memory
        self.before, self.turn, self.watch = before, turn, BatchingWatch(batching)
        self.seeds, self.components = seeds, components
        self.step, self.patches = 0, patches

    @property
    def batching(self) -> Batching:
        return self.watch.last

    @torch.no_grad()
    def sample(
        self, guider: Any, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ) -> torch.Tensor:
        extra_args["denoise_mask"] = denoise_mask
        model = comfy.samplers.KSamplerX0Inpaint(guider, sigmas)
        model.latent_image, model.noise = latent_image, noise
        sampling = guider.inner_model.model_sampling

        progress = Progress(self.before, memory={name: value.to(noise.device) for name, value in self.memory.items()})
        self.watch.attach(extra_args["model_options"], progress)
        carried = PatchMemory(extra_args["model_options"])

        def report(step: int, state: State) -> None:
            self.state, self.memory, self.step = state, dict(progress.memory), step + 1
            self.patches = carried.now()
            self.watch.compare()
            if callback is not None:
                callback(self.before + step, state.denoised, state.x, self.before + self.plan.steps)
            self.turn()

        if self.state is None:
            x = sampling.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(guider, sigmas))
            self.state = start(x)
        else:
            self.state = moved(self.state, noise.device)
            warn_of_what_forgets(extra_args["model_options"], getattr(guider, "conds", {}))
        with carried.lent(self.patches, noise.device):
            self.state = solve(
                self.sampler.solver.name,
                self.plan,
                model,
                self.state,
                self.sampler.noise(self.seeds, noise, sampling, self.components),
                extra_args,
                report,
                progress=progress,
                stop_step=self.stop_step,
                disable=disable_pbar,
            )
        sigma = self.plan.sigmas[min(self.stop_step, self.plan.steps)]
        if path_of(sampling).alpha(sigma) == 0.0:
            return self.state.x
        return sampling.inverse_noise_scaling(sigmas.new_tensor(sigma), self.state.x)


def moved(state: State, device: torch.device) -> State:
    """The same state on another device: bit for bit, since moving does not round. What is shared stays shared."""
    there: dict[int, torch.Tensor] = {}

    def at(tensor: torch.Tensor) -> torch.Tensor:
        return there.setdefault(id(tensor), tensor.to(device))

    registers = {name: at(value) for name, value in state.registers.items()}
    return State(registers, state.index, None if state.denoised is None else at(state.denoised))
