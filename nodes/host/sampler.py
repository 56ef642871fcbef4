"""Our plans as ComfyUI's SAMPLER objects.

Nothing here goes around the host: the guider calls the model, the inpaint wrapper applies masks, and the callback
draws previews and carries Cancel, as for the host's own samplers.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from inspect import signature
from types import MappingProxyType
from typing import Any, NamedTuple

import comfy.model_sampling
import comfy.samplers
import torch
from tqdm.auto import trange

from ...samplers import FLOW, VE, Path, Plan, State, run, start
from ...samplers.noise import drawn_ahead
from ...samplers.parameters import InputError, Value, checked
from ...samplers.plan import NoiseSource, ascends
from ...samplers.registry import Solver
from ...samplers.schedules.checks import check_sigmas
from ...samplers.solvers.first_level import BELOW_ONE
from ...samplers.solvers.open_end import open_ended
from ...samplers.solvers.rest import placed, rested
from ...samplers.solvers.sa import CORE_FROM, CORE_TO
from .adaptive import AdaptiveRun, EachImage, EachMemory, calls_between
from .batching import Batching, BatchingWatch
from .denoiser import HostDenoiser
from .finite import FiniteCheck
from .guider import PredictionGuider
from .levels import read_sigmas, snapped
from .models import below_one, core_interval, path_of, sampling_of
from .onlooker import Onlooker, Step, moment, shown
from .patch_memory import MOST_LATENTS, PatchMemory, Remembered, foreign, warn_of_what_forgets
from .progress import Progress
from .seeds import AT_NOTHING, UNSEEDED, ImageSeeds, in_sampler_noise, packed_sizes
from .transfer import Leaving, sent, state_on
from .warm_up import warm_up


class Limits(NamedTuple):
    """What a plan does not know of its run. Noise added on the way does not go above the `highest` level of the model,
    nor above where the run `began`, which is where its plan begins by default. `below` is where it begins instead of at
    1 if that is asked of a solver, and `core_from` and `core_to` between which noise is added if that is asked."""

    highest: float = math.inf
    began: float | None = None
    below: float = BELOW_ONE
    core_from: float = CORE_FROM
    core_to: float = CORE_TO

    @staticmethod
    def of(model_sampling: Any, params: Mapping[str, Value] = MappingProxyType({})) -> "Limits":
        """Those of a model, for a solver with these parameters."""
        below, between = below_one(model_sampling), core_interval(model_sampling, params) or (CORE_FROM, CORE_TO)
        return Limits(float(model_sampling.sigma_max), None, below, *between)


# Those of a plan that is the whole run, of a model that is not known.
OWN_LIMITS = Limits()
# Version 0.1.0 looked at neither.
NO_LIMITS = Limits(math.inf, math.inf)


def make_plan(
    solver: Solver,
    params: Mapping[str, Value],
    path: Path,
    sigmas: Sequence[float],
    open_end: bool = False,
    snap: bool = True,
    limits: Limits = OWN_LIMITS,
) -> Plan:
    """The plan, with every input checked first; with an `open_end` it leaves what a longer one would go on with.

    A schedule of one level or none is a part of no steps, and so is its plan. Version 0.1.0 did not `snap` the first
    level.
    """
    levels, complete = snapped(path, sigmas) if snap else tuple(sigmas), checked(solver.plan, params)
    check_sigmas(path, levels, fewest=0, upwards=True)
    if len(levels) < 2:
        return Plan(path, levels, ())
    if ascends(levels):
        check_going_up(solver, complete, path, levels)
    known = signature(solver.plan).parameters
    complete |= {name: limit for name, limit in limits._asdict().items() if name in known}
    return open_ended(solver.plan, path, levels, complete) if open_end else solver.plan(path, levels, **complete)


def check_going_up(solver: Solver, params: Mapping[str, Value], path: Path, levels: Sequence[float]) -> None:
    """Raises InputError where a run upwards would add noise, with the setting that does not."""
    change = solver.for_going_up(path, levels, params)
    if change == {}:
        return
    problem = f"go up, to unsample a picture, and {solver.name} adds noise on the way, which cannot be undone"
    cure = "take a solver without noise, such as DPM++ 2M or Heun"
    if change:
        ((name, value),) = change.items()
        cure = f"set {name} to {value if isinstance(value, str) else format(value, 'g')}, or {cure}"
    raise InputError("sigmas", problem, cure)


MASKED = (
    "has a noise_mask, and unsampling takes the whole picture to its noise: under a mask the rest would be noise of "
    "another kind"
)
UNMASK = "leave the mask out here, and set it for the run down again"


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
    rests: int,
    disable: bool | None = None,
) -> State:
    """Runs `plan` on the host's `model(x, sigma, **extra_args)`, a step at a time, up to `stop_step`; the model is not
    called in the first `rests` steps."""
    warn_of_two_shifts(name, plan, model)
    denoiser = HostDenoiser(name, plan, model, extra_args, progress or Progress(), state.index, rests)
    finite = FiniteCheck(denoiser, state)
    first = plan.stages[state.index].step if state.index < len(plan.stages) else plan.steps
    last = plan.steps if stop_step is None else min(stop_step, plan.steps)
    with drawn_ahead(noise, plan, state, plan.first_stage(last)) as noise:
        for step in trange(first, last, disable=disable):
            state = run(plan, finite, state, noise, stop=plan.first_stage(step + 1))
            finite.note(state)
            report(step, state)
            finite.look(state, noise, final=step + 1 == last)
    return state


def resting_steps(guider: Any, plan: Plan, before: int = 0) -> int:
    """How many steps of `plan`, from its first on, a guider leaves x as it is; `before` have gone before. Upwards none:
    what rests is the beginning of a picture."""
    rests = None if ascends(plan.sigmas) else getattr(guider, "rests", None)
    levels = enumerate(plan.sigmas[:-1])
    return next((i for i, level in levels if rests is None or not rests(level, before + i, plan.path)), plan.steps)


def warn_of_two_shifts(name: str, plan: Plan, model: Any) -> None:
    """MiniMax-H3 shifts the time of its sound otherwise than that of its picture, and a plan knows one noise level."""
    if plan.adds_noise and type(getattr(model.inner_model, "inner_model", None)).__name__ == "MiniMaxH3":
        logging.warning(
            "Stepwise: %s adds noise on the way, and the sound of MiniMax-H3 has another noise level than its picture: "
            "it gets up to 55 %% too much or too little. Take a solver that adds none, such as DPM++ 2M.",
            name,
        )


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

    def adaptive(
        self,
        plan: Plan,
        model: Any,
        sampling: Any,
        seeds: ImageSeeds,
        like: torch.Tensor,
        components: Sequence[int],
        extra_args: Mapping[str, Any],
        progress: Progress,
        onlooker: EachImage | None = None,
    ) -> AdaptiveRun | None:
        """The run of `plan` on a batch `like`, of a solver with adaptive steps; None of one with those of its plan."""
        if self.solver.controller is None:
            return None
        noises = [self.noise(seeds.of(i), like[i : i + 1], sampling, components) for i in range(len(like))]
        controller, name = self.solver.controller(self.params), self.solver.name
        return AdaptiveRun(name, controller, plan, model, noises, extra_args, progress, onlooker)

    def rested(self, plan: Plan, steps: int, limits: Limits = OWN_LIMITS) -> Plan:
        """`plan`, made by this sampler under these limits, but that its first steps leave x as it is."""
        open_end = plan.leaves != ("x",)
        if limits.began is None and plan.sigmas:
            limits = limits._replace(began=plan.sigmas[0])

        def make(sigmas: Sequence[float]) -> Plan:
            return make_plan(self.solver, self.params, plan.path, sigmas, open_end, limits=limits)

        return rested(plan, steps, make)

    def warn_of_no_noise(self, plan: Plan, model: Any, seed: int | None) -> None:
        """Under the host's nodes no more than a number is known of the NOISE: 0 and no starting noise is Disable
        Noise."""
        noise, first = getattr(model, "noise", None), plan.path.is_noise(plan.sigmas[0]) if plan.sigmas else False
        if noise is None or not (first or (plan.adds_noise and not seed)) or bool(noise.any()):
            return
        for holds, (problem, cure) in ((plan.adds_noise and not seed, UNSEEDED), (first, AT_NOTHING)):
            if holds:
                said = InputError("noise", problem.format(self.solver.name), cure)
                logging.warning("Stepwise: %s: %s", self.solver.name, said)

    def sample(self, model_wrap: Any, sigmas: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the host does; but to level 1 on a flow model, where it would divide by alpha, the result is the noise."""
        levels = snapped(path_of(model_wrap.inner_model.model_sampling), read_sigmas(sigmas))
        if not ascends(levels) or not FLOW.is_noise(levels[-1]) or path_of(model_wrap.inner_model.model_sampling) is VE:
            return super().sample(model_wrap, sigmas, *args, **kwargs)
        reached: list[torch.Tensor] = []
        alone = copy(self)
        alone.sampler_function = lambda *given, **named: reached.append(self.integrate(*given, **named)) or reached[0]
        comfy.samplers.KSAMPLER.sample(alone, model_wrap, sigmas, *args, **kwargs)
        return reached[0]

    @torch.no_grad()
    def integrate(
        self, model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args=None, callback=None, disable=None
    ) -> torch.Tensor:
        """The host's sampler function: x comes noised, and the result goes back to its guider."""
        extra_args = extra_args or {}
        sampling = sampling_of(model.inner_model.model_patcher)
        try:
            limits = Limits.of(sampling, self.params)
            plan = make_plan(self.solver, self.params, path_of(sampling), read_sigmas(sigmas), limits=limits)
        except InputError as error:
            raise ValueError(f"{self.solver.name} Sampler: {error}") from None

        def report(step: int, state: State) -> None:
            if callback is not None:
                sigma = sigmas[step]
                callback({"i": step, "x": state.x, "denoised": state.denoised, "sigma": sigma, "sigma_hat": sigma})

        if ascends(plan.sigmas) and extra_args.get("denoise_mask") is not None:
            raise ValueError(f"{self.solver.name} Sampler: {InputError('latent_image', MASKED, UNMASK)}")
        self.warn_of_no_noise(plan, model, extra_args.get("seed"))
        seeds = ImageSeeds.counted(extra_args.get("seed") or 0, len(x))
        noise = self.noise(seeds, x, sampling, packed_sizes(model.inner_model))
        rests = resting_steps(model.inner_model, plan)
        given = (model, sampling, seeds, x, packed_sizes(model.inner_model), extra_args, Progress())
        adaptive = self.adaptive(plan, *given)
        if adaptive is not None:
            return adaptive.solve(start(x), report, rests=rests, disable=disable).x
        run = (self.solver.name, self.rested(plan, rests, limits), model, start(x), noise, extra_args, report)
        return solve(*run, rests=rests, disable=disable).x


class PlanRun(comfy.samplers.Sampler):
    """One run of a plan, from its beginning or from a state, up to a step; afterwards `state` holds where it stands,
    `step` the steps of the plan that are done, `memory` what the guidance remembers there, `remembered` what patches of
    others do (`forgotten` names what of it cannot be carried), and `batching` how the host grouped the prompts of the
    last model call; `left` has state and memory on the CPU. An `onlooker` is told of every step.

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
        turn: Callable[[], None] | None = None,
        limits: Limits = OWN_LIMITS,
        warms_up: bool = False,
        onlooker: Onlooker | None = None,
    ):
        self.sampler, self.plan, self.state, self.stop_step, self.memory = sampler, plan, state, stop_step, memory
        self.before, self.turn, self.watch = before, turn, BatchingWatch(batching)
        self.warms_up, self.onlooker = warms_up, onlooker
        self.seeds, self.components, self.limits = seeds, components, limits
        self.step, self.patches = 0, patches
        self.remembered, self.forgotten = Remembered(), ()
        self.leaving: Leaving | None = None

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

        progress = Progress(
            self.before, memory={name: sent(value, noise.device) for name, value in self.memory.items()}
        )
        self.watch.attach(extra_args["model_options"], progress)
        room = MOST_LATENTS * noise.nbytes
        others = guider.options_of_others() if isinstance(guider, PredictionGuider) else ()
        carried = PatchMemory(extra_args["model_options"], foreign(guider, PredictionGuider), room, others)

        rests = resting_steps(guider, self.plan, self.before)
        adapts = self.sampler.solver.controller is not None
        plan = self.plan if adapts else self.sampler.rested(self.plan, rests, self.limits)
        onlooker = self.onlooker if self.onlooker is None or not adapts else EachImage(self.onlooker)

        def known(state: State, plan: Plan, step: int) -> State:
            return placed(state, plan, step) if rests and not adapts else state

        def report(step: int, state: State) -> None:
            before = () if self.state is None else self.state.paces
            self.state, self.memory, self.step = known(state, self.plan, step + 1), dict(progress.memory), step + 1
            ends = step + 1 == min(self.stop_step, self.plan.steps)
            # Nobody asks for the steps between unless they are saved.
            if self.turn is not None or ends:
                self.remembered = carried.now() if adaptive is None else adaptive.remembered()
            if ends:
                # So that one wait is enough for this and for the check of the predictions.
                self.leaving = Leaving(self.state, self.memory)
            self.forgotten = carried.forgotten
            self.watch.compare()
            if onlooker is not None:
                calls = 0 if step < rests else plan.first_stage(step + 1) - plan.first_stage(step)
                calls = calls_between(before, state.paces) if adapts else calls
                onlooker.stepped(Step(self.state.x, self.state.denoised, calls, moment(noise.device)))
            if callback is not None:
                callback(self.before + step, state.denoised, state.x, self.before + self.plan.steps)
            if self.turn is not None:
                self.turn()

        if self.state is None:
            x = sampling.noise_scaling(sigmas[0], noise, latent_image, self.begins_at_highest(sampling))
            self.state = start(x)
        else:
            self.state = state_on(self.state, noise.device)
            warn_of_what_forgets(extra_args["model_options"], getattr(guider, "conds", {}))
        done, stages = self.state.index, self.plan.stages
        if self.warms_up and done < len(stages):
            warm_up(guider, self.state.x, stages[done].sigma)
        looked_at = extra_args
        if onlooker is not None:
            looked_at = shown(onlooker, progress, guider, extra_args)
            onlooker.begins(self.state.x, moment(noise.device))
        first = stages[done].step if done < len(stages) else self.plan.steps
        given = (model, sampling, self.seeds, noise, self.components, looked_at, progress)
        adaptive = self.sampler.adaptive(plan, *given, onlooker if isinstance(onlooker, EachImage) else None)
        if adaptive is not None:
            adaptive.patches = EachMemory(carried, self.patches, len(noise), noise.device)
            options = {"first": first, "stop_step": self.stop_step, "rests": rests, "disable": disable_pbar}
            adaptive.solve(self.state, report, **options)
            return self.result(sampling, sigmas)
        with carried.lent(self.patches, noise.device):
            solve(
                self.sampler.solver.name,
                plan,
                model,
                known(self.state, plan, first),
                self.sampler.noise(self.seeds, noise, sampling, self.components),
                looked_at,
                report,
                progress=progress,
                stop_step=self.stop_step,
                rests=rests,
                disable=disable_pbar,
            )
        return self.result(sampling, sigmas)

    def result(self, sampling: Any, sigmas: torch.Tensor) -> torch.Tensor:
        """x as the host's guiders hand it on; an image that has gone beyond its step, by its own level."""
        sigma, x = self.plan.sigmas[min(self.stop_step, self.plan.steps)], self.state.x
        if path_of(sampling).alpha(sigma) == 0.0:
            return x
        if sigma == 0.0 or all(pace.level == sigma for pace in self.state.paces):
            return sampling.inverse_noise_scaling(sigmas.new_full((), sigma), x)
        levels = [sigmas.new_full((), pace.level) for pace in self.state.paces]
        return torch.cat([sampling.inverse_noise_scaling(s, each) for s, each in zip(levels, x.split(1), strict=True)])

    def left(self) -> tuple[State, dict[str, torch.Tensor]]:
        """State and memory as they are now, on the CPU."""
        if self.leaving is None or self.leaving.state is not self.state:
            self.leaving = Leaving(self.state, self.memory)
        return self.leaving.taken()

    def begins_at_highest(self, sampling: Any) -> bool:
        """The host's `max_denoise`, without reading levels back from the device where the run knows them."""
        highest = self.limits.highest if math.isfinite(self.limits.highest) else float(sampling.sigma_max)
        first = float(torch.tensor(self.plan.sigmas[0]))
        return math.isclose(highest, first, rel_tol=1e-05) or first > highest
