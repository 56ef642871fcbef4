"""What a run leaves behind, and what lets it go on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..samplers import Path, State
from ..samplers.parameters import InputError, Value
from .noise import ImageSeeds


@dataclass(frozen=True)
class HeldRun:
    """A run at a step boundary: STEPWISE_STATE.

    `noise`, `latent` (samples and mask) and `seed` are what the run began with, exactly as they were handed to the
    guider; with the full schedule they let the rest of the run see what it would have seen uncut. `state` is None for a
    SAMPLER that is not ours: it has an output, but keeps nothing that could be resumed. `memory` is what the guidance
    remembers from step to step. `seeds` to `variation_strength` are those of `ImageSeeds`.
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
    seeds: tuple[int, ...] = ()
    variation_seeds: tuple[int, ...] = ()
    variation_strength: float = 0.0

    @property
    def image_seeds(self) -> ImageSeeds:
        return ImageSeeds(self.seeds, self.variation_seeds, self.variation_strength)

    def check_fits(
        self, solver: str, params: Mapping[str, Value], path: Path, sigmas: tuple[float, ...] | None
    ) -> None:
        """Raises InputError unless the run can go on with these."""
        if self.state is None:
            cure = "use a Stepwise sampler in the node that made it"
            raise InputError("state", f"comes from a sampler that keeps nothing to resume ({self.solver})", cure)
        if path is not self.path:
            problem = f"comes from a model on the {self.path!r} path, and this model is on {path!r}"
            raise InputError("state", problem, "wire a GUIDER whose model is of the same family")
        if (solver, dict(params)) != (self.solver, dict(self.params)):
            problem = f"was made by {described(self.solver, self.params)}, and this is {described(solver, params)}"
            raise InputError("state", problem, "use the same solver and parameters")
        if sigmas is not None and sigmas != self.sigmas:
            cure = "wire the full schedule of the first part, or leave sigmas unwired"
            raise InputError("sigmas", "is not the schedule that the state was made on", cure)


def described(solver: str, params: Mapping[str, Value]) -> str:
    return f"{solver} ({', '.join(f'{name} = {value}' for name, value in params.items())})" if params else solver
