"""What a run leaves behind, and what lets it go on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...samplers import Path, State
from ...samplers.checkpoint import digest
from ...samplers.parameters import InputError, Value, counted
from ...samplers.solvers.first_level import BELOW_ONE
from ...samplers.solvers.sa import CORE_FROM, CORE_TO
from ..host.batching import Batching
from ..host.levels import snapped
from ..host.sampler import NO_LIMITS, Limits
from ..host.seeds import ImageSeeds

# Longer text is named by its digest.
MOST_SHOWN = 40


@dataclass(frozen=True)
class HeldRun:
    """A run at a step boundary: STEPWISE_STATE.

    `noise`, `latent` (samples and mask) and `seed` are what the run began with, exactly as they were handed to the
    guider; with the full schedule they let the rest of the run see what it would have seen uncut. `state` is None for a
    SAMPLER that is not ours: it has an output, but keeps nothing that could be resumed. `memory` is what the guidance
    remembers from step to step, `patches` what those of others do, and `forgotten` names what of it cannot be carried.

    sigmas, start_step: the full schedule, and where in it the run began.
    solver_step: where the present solver began: later than `start_step` after a fork to another one.
    step: where the run stands.
    plan: fingerprint of the solver's plan, whatever version of Stepwise makes it.
    model: what must agree in the model of every part, and what it was called.
    denoised: the last prediction of the clean latent, as a LATENT has it.
    batching: which prompts the host evaluated together in the last model call: by free memory, and with it change the
        last bits of a prediction.
    seeds, variation_seeds, variation_strength: those of `ImageSeeds`.
    highest: the highest noise level of the model that the run began with; 0 where version 0.1.0 did not note it.
    warm_up: whether the model is called once, for nothing, before the run goes on.
    below: the model's level a little below 1 where a run may begin instead of there; 0 where it was not noted.
    core_from, core_to: its levels between which ComfyUI's sa_solver adds noise; 0 where they were not noted.
    """

    solver: str
    params: Mapping[str, Value]
    path: Path
    sigmas: tuple[float, ...]
    start_step: int
    noise: Any
    latent: Mapping[str, Any]
    seed: int
    state: State | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    solver_step: int = 0
    step: int = 0
    plan: str = ""
    model: Mapping[str, Value] = field(default_factory=dict)
    denoised: Any = None
    batching: Batching = ()
    patches: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    variation_seeds: tuple[int, ...] = ()
    variation_strength: float = 0.0
    forgotten: tuple[str, ...] = ()
    highest: float = 0.0
    below: float = 0.0
    core_from: float = 0.0
    core_to: float = 0.0
    warm_up: bool = False

    @property
    def limits(self) -> Limits:
        """What the plan of this run does not go above."""
        if self.highest == 0.0:
            return NO_LIMITS
        began = snapped(self.path, self.sigmas[self.start_step :])
        between = (self.core_from, self.core_to) if self.core_from else (CORE_FROM, CORE_TO)
        return Limits(self.highest, began[0] if began else None, self.below or BELOW_ONE, *between)

    @property
    def image_seeds(self) -> ImageSeeds:
        return ImageSeeds(self.seeds, self.variation_seeds, self.variation_strength)

    @property
    def steps(self) -> int:
        return max(len(self.sigmas) - 1, 0)

    @property
    def level(self) -> float | None:
        """The noise level where the run stands; an empty schedule has none."""
        return self.sigmas[self.step] if self.sigmas else None


def described(solver: str, params: Mapping[str, Value]) -> str:
    return f"{solver} ({', '.join(f'{name} = {brief(value)}' for name, value in params.items())})" if params else solver


def brief(value: Value) -> Value:
    """A setting as a message has it: of the rows of a fitted plan, by what to tell them apart."""
    return digest(value, {})[:8] if isinstance(value, str) and len(value) > MOST_SHOWN else value


def told_apart(held: HeldRun, solver: str, params: Mapping[str, Value]) -> tuple[str, str]:
    """The solver of a state and another in words; of one solver only the parameters that differ."""
    if solver != held.solver:
        return described(held.solver, held.params), described(solver, params)
    names = [name for name in {**held.params, **params} if held.params.get(name) != params.get(name)]
    before, now = ({name: each[name] for name in names if name in each} for each in (held.params, params))
    return described(solver, before), described(solver, now)


def check_family(held: HeldRun, path: Path, model: Mapping[str, Value]) -> None:
    """Raises InputError for a model whose latents mean something else than those of the state."""
    cure = "take a model of the same family"
    if path is not held.path:
        problem = f"comes from a model on the {held.path!r} path, and this model is on {path!r}"
        raise InputError("state", problem, cure)
    for what in ("latent", "channels"):
        if held.model.get(what) != model.get(what):
            ours, theirs = (
                f"{counted(each.get('channels'), 'channel')} ({each.get('latent')})" for each in (held.model, model)
            )
            raise InputError("state", f"comes from a model with latents of {ours}, and this one has {theirs}", cure)
