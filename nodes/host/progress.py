"""What a run of ours tells the guider at every model call, and what guidance remembers from step to step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

KEY = "stepwise"


@dataclass
class Progress:
    """Where a run stands, as plain numbers, so that a guider reads nothing back from the device.

    One object a run, found under `KEY` in the `model_options` of every model call. `memory` belongs to the guidance: it
    is taken into the state after each step, and is there again when the run goes on. Its tensors are replaced, never
    written to, since a state may hold them. `first` marks the first call of a step, at which memory moves on.
    `before` counts the steps of the schedule before those of the present solver, and is part of `step`; `level` is the
    noise level at which the step begins; `upwards` of a run that unsamples.
    A guider of ours shows each prediction that it evaluates to `witness`, by its name.
    """

    before: int = 0
    sigma: float = 0.0
    stage: int = 0
    step: int = 0
    level: float = 0.0
    first: bool = True
    upwards: bool = False
    memory: dict[str, Tensor] = field(default_factory=dict)
    witness: Callable[[str, Tensor], None] | None = None

    def shown_to(self, extra_args: Mapping[str, Any]) -> dict[str, Any]:
        """`extra_args` whose model options carry this object; the caller's own are left as they are."""
        return {**extra_args, "model_options": {**extra_args.get("model_options", {}), KEY: self}}


def progress_of(model_options: Mapping[str, Any]) -> Progress | None:
    """The run that makes this model call, if it is one of ours."""
    return model_options.get(KEY)
