"""One call of the model that is thrown away, before a run goes on in a new process.

The first call of a network in a process may differ from all later ones in its last bits: on a GPU in float16 the
libraries beneath PyTorch choose other kernels then. A run in one piece made that call long before, so its rest in a new
process equals it only when somebody has made one before. docs/gpu.md has what was measured.
"""

import logging
from collections.abc import Mapping
from typing import Any

from comfy.conds import CONDNoiseShape
from torch import Tensor

from .transfer import sent_all

# A side of the piece of the latent that is shown to the model: as small as any model takes, and larger than a patch.
SIDE = 16
NO_PROMPT = "Stepwise: warm_up: the guider %s shows no conditioning, so no call was made before the run went on."


def warm_up(guider: Any, x: Tensor, sigma: float) -> None:
    """Calls the model of `guider`, within a run, once: on a corner of the first image of x, as for a conditioning with
    that area, with its first conditioning and without the patches that the run has. The result is thrown away."""
    model, inputs = guider.inner_model, inputs_of(guider)
    if inputs is None:
        logging.warning(NO_PROMPT, type(guider).__name__)
        return
    area = None if needs_all(inputs, x) else corner(x)
    given = {name: sent_all(each.process_cond(batch_size=1, area=area).cond, x.device) for name, each in inputs.items()}
    image = x[:1] if area is None else x[(slice(1), slice(None), *(slice(side) for side in area[: len(area) // 2]))]
    level = x.new_full((1,), sigma)
    # What the host puts there for its own calls, and nothing of anybody else's.
    options = {"cond_or_uncond": [0], "sigmas": level, "uuids": []}
    model.apply_model(image.clone(), level, **given, transformer_options=options)


def inputs_of(guider: Any) -> Mapping[str, Any] | None:
    """The model's inputs of the first conditioning that the host has made ready."""
    for conds in (getattr(guider, "conds", None) or {}).values():
        for cond in conds or ():
            if cond.get("model_conds") is not None:
                return cond["model_conds"]
    return None


def needs_all(inputs: Mapping[str, Any], x: Tensor) -> bool:
    """Whether the model is told the size of the whole latent, which a corner of it would not have."""
    others = (each for each in inputs.values() if not isinstance(each, CONDNoiseShape))
    return "latent_shapes" in inputs or any(sized_like(each.cond, x) for each in others)


def sized_like(value: Any, x: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim == x.ndim and value.shape[2:] == x.shape[2:]


def corner(x: Tensor) -> tuple[int, ...]:
    """An area as the host has them: sides, then where they begin."""
    sides = tuple(min(SIDE, side) for side in x.shape[2:])
    return (*sides, *(0 for _ in sides))
