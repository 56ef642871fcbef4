"""What a run of ours tells the guider at every model call, and what guidance remembers from step to step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.model_patcher
from torch import Tensor

KEY = "stepwise"
# Where a run of somebody else's SAMPLER has its witness.
WITNESS = "stepwise_witness"
Witness = Callable[[str, Tensor], None]


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
    witness: Witness | None = None

    def shown_to(self, extra_args: Mapping[str, Any]) -> dict[str, Any]:
        """`extra_args` whose model options carry this object; the caller's own are left as they are."""
        return {**extra_args, "model_options": {**extra_args.get("model_options", {}), KEY: self}}


def progress_of(model_options: Mapping[str, Any]) -> Progress | None:
    """The run that makes this model call, if it is one of ours."""
    return model_options.get(KEY)


def witness_of(model_options: Mapping[str, Any]) -> Witness | None:
    """Who looks at the predictions of this model call."""
    progress = progress_of(model_options)
    return model_options.get(WITNESS) if progress is None else progress.witness


def seen_by(witness: Witness) -> Callable[[dict[str, Any]], Tensor]:
    """A post-CFG function that shows the host's two predictions to `witness`, and changes nothing."""

    def look(args: dict[str, Any]) -> Tensor:
        witness("positive", args["cond_denoised"])
        # Where it is not evaluated the host hands on zeros or nothing, and no conditioning.
        if args.get("uncond") is not None and args["uncond_denoised"] is not None:
            witness("negative", args["uncond_denoised"])
        return args["denoised"]

    return look


def watched(model_options: Mapping[str, Any], witness: Any, evaluate_uncond: bool = True) -> dict[str, Any]:
    """Model options with a post-CFG function more; the caller's own are left as they are."""
    options = comfy.model_patcher.create_model_options_clone(dict(model_options))
    set_post = comfy.model_patcher.set_model_options_post_cfg_function
    return set_post(options, witness, disable_cfg1_optimization=evaluate_uncond)
