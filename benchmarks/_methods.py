"""The methods whose cost is compared, from the registry and the table of twins, and how each library runs them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from stepwise.samplers import FLOW, VE, AddressedNoise, run, start
from stepwise.samplers import Path as NoisePath
from stepwise.samplers.registry import SOLVERS, Solver
from stepwise.samplers.schedules import karras
from stepwise.tools.generate.diffusers_twins import DIFFUSERS, MULTISTEP, SDE
from stepwise.tools.generate.twins import COMFYUI, Twin
from torch import Tensor

STEPS, MIDDLE = 20, 10
SIGMAS = {
    VE: karras(STEPS),
    FLOW: tuple(3.0 * u / (1.0 + 2.0 * u) for u in (1.0 - i / STEPS for i in range(STEPS + 1))),
}
SOLVER: Mapping[str, Solver] = {solver.id: solver for solver in SOLVERS}
SINGLESTEP = "DPMSolverSinglestepScheduler"
Options = Mapping[str, Any]

# What a step in the middle of a run does not know, and numbers that cost the same whatever they are.
COSTS_NOTHING = {"warm_up", "final_order", "weights", "first_level", "end", "interval", "noise_rate"}
# The same method elsewhere, where it takes other steps than ours or stands in no row of the table of twins.
ALIKE_COMFYUI = (
    Twin("euler", {}, "DDIM"),
    Twin("dpmpp_2s_ancestral", {"eta": 0.0}, "DPMpp2S"),
    Twin("uni_pc_bh2", {}, "UniPC", {"order": 3}),
)
ALIKE_DIFFUSERS = (
    Twin("DDIMScheduler", {}, "DDIM"),
    Twin(
        SINGLESTEP,
        {"solver_order": 3, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        "DPMSolver",
        {"order": "3"},
    ),
    Twin(MULTISTEP, {"solver_order": 3, **SDE}, "DPMpp3MSDE"),
    Twin("DEISMultistepScheduler", {"solver_order": 3}, "DEIS"),
    Twin("LMSDiscreteScheduler", {}, "LMS"),
)
# Its noise is asked of a driver, which the pretended GPU has not.
NOT_COUNTED = ("DPMSolverSDEScheduler",)


@dataclass(frozen=True)
class Method:
    """A solver of ours and its counterparts: a function of ComfyUI's, a scheduler of diffusers', each with options."""

    solver: str
    params: Options = field(default_factory=dict)
    comfyui: tuple[str, Options] | None = None
    diffusers: tuple[str, Options] | None = None

    @property
    def entry(self) -> Solver:
        return SOLVER[self.solver]

    @property
    def label(self) -> str:
        values = ", ".join(f"{name} {value}" for name, value in self.params.items() if value)
        return SOLVER[self.solver].name + (f", {values}" if values else "")

    @property
    def calls(self) -> int:
        """Model calls of a step."""
        return len([stage for stage in self.plan(VE).stages if stage.step == MIDDLE])

    def plan(self, path: NoisePath):
        return SOLVER[self.solver].plan(path, SIGMAS[path], **self.params)


def counterpart(twins: Sequence[Twin], solver: Solver, params: Options) -> tuple[str, Options] | None:
    """The first of `twins` whose steps in the middle are those of the solver with these parameters."""
    defaults = {name: parameter.default for name, parameter in solver.parameters.items()}

    def costly(params: Options) -> dict[str, Any]:
        return {name: value for name, value in {**defaults, **params}.items() if name not in COSTS_NOTHING}

    ours = (t for t in twins if t.ours == solver.id and "VE" in t.paths and t.name not in NOT_COUNTED)
    return next(((t.name, t.options) for t in ours if costly(t.params) == costly(params)), None)


def methods_of(solver: Solver) -> Iterator[Method]:
    """Its default, and the settings that the registry marks for the tables."""
    default, *others = solver.settings
    shown = [default, *(setting for setting in others if setting.in_cost_table)]
    for setting in shown:
        params = setting.params if len(shown) > 1 else {}
        comfyui = counterpart((*ALIKE_COMFYUI, *COMFYUI), solver, params)
        diffusers = counterpart((*ALIKE_DIFFUSERS, *DIFFUSERS), solver, params)
        yield Method(solver.id, params, comfyui, diffusers)


# The steps of an adaptive solver are not those of its plan, and are looked at one by one.
PLANNED = tuple(solver for solver in SOLVERS if solver.controller is None)
METHODS = tuple(m for solver in PLANNED for m in sorted(methods_of(solver), key=lambda method: method.label))


class Enough(Exception):
    """The step has been seen: the rest of the run is not needed."""


Model = Callable[[Tensor], Tensor]


def run_ours(method: Method, model: Model, x: Tensor, path: NoisePath = VE) -> None:
    """As the node does it: the model wants the noise level as a tensor, one number per image."""

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        x.new_full((len(x),), sigma)
        return model(x)

    run(method.plan(path), denoiser, start(x), AddressedNoise([0]))


def run_comfyui(method: Method, model: Model, x: Tensor) -> None:
    import comfy.samplers

    name, options = method.comfyui
    function = comfy.samplers.sampler_object(name).sampler_function
    sigmas = torch.tensor(SIGMAS[VE]).to(x.device)
    function(ComfyUIModel(model), x, sigmas, extra_args={}, disable=True, **options)


class ComfyUIModel:
    """What ComfyUI's functions want to know of a model, beside calling it: that it is of the EPS family."""

    def __init__(self, model: Model):
        import comfy.model_sampling

        class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
            pass

        self.model = model
        sampling = Sampling()
        patcher = SimpleNamespace(get_model_object=lambda name: sampling)
        inner = SimpleNamespace(model_sampling=sampling)
        self.inner_model = SimpleNamespace(inner_model=inner, model_patcher=patcher)

    def __call__(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        return self.model(x)


def run_diffusers(method: Method, model: Model, x: Tensor) -> None:
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    name, options = method.diffusers
    scheduler = getattr(diffusers, name)(**options)
    # Its singlestep scheduler counts model calls, not steps.
    scheduler.set_timesteps(STEPS * method.calls if name == SINGLESTEP else STEPS, device=x.device)
    for timestep in scheduler.timesteps:
        x = scheduler.step(model(x), timestep, x, return_dict=False)[0]
