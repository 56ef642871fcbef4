"""ComfyUI's models as paths, families and tables of noise levels."""

import math
from collections.abc import Mapping
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch

from ...samplers import FLOW, VE, Path
from ...samplers.parameters import InputError, Value
from ...samplers.schedules.tables import Trained
from ...samplers.solvers.first_level import PERCENT
from .levels import snapped

SA_INTERVAL = (0.2, 0.8)


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


def family_of_all(guider: Any) -> dict[str, Value]:
    """That of the guider's model, and what the other models are called, of a guider that has others."""
    others = [type(each.model).__name__ for each in getattr(guider, "models", ())]
    return {**family_of(guider.model_patcher), **({"others": ", ".join(others)} if others else {})}


def sampling_name(model_sampling: Any) -> str:
    """The host's names for a model's noise levels and its prediction, which it puts together anew for every model."""
    bases = [base.__name__ for base in type(model_sampling).__mro__ if base.__module__ == comfy.model_sampling.__name__]
    return " ".join(bases)


def trained_of(model_sampling: Any) -> Trained:
    """The noise levels that a model was trained on; raises InputError for a model that has no table of them."""
    table = getattr(model_sampling, "sigmas", None)
    if table is None:
        cure = "set the noise levels by hand, in a schedule node without a model"
        raise InputError("model", "has no table of trained noise levels", cure)
    shift = float(getattr(model_sampling, "shift", 1.0))
    if isinstance(model_sampling, comfy.model_sampling.ModelSamplingFlux):
        shift = math.exp(shift)
    # Ascending here, and the highest level of a flow model is 1 as in a plan.
    levels = snapped(path_of(model_sampling), table.tolist()[::-1])[::-1]
    return Trained(path_of(model_sampling), levels, shift)


def core_interval(model_sampling: Any, params: Mapping[str, Value]) -> tuple[float, float] | None:
    """The levels at 20 % and 80 % of the model's own time, between which ComfyUI's sa_solver adds noise; nothing where
    nobody asks and they would have to be read back from the device."""
    if path_of(model_sampling) is not FLOW and params.get("interval") != "core":
        return None
    high, low = (float(model_sampling.percent_to_sigma(part)) for part in SA_INTERVAL)
    return high, low


def below_one(model_sampling: Any) -> float:
    """The level at which ComfyUI's samplers for a finite log-SNR begin on a flow model whose schedule begins at 1."""
    if path_of(model_sampling) is not FLOW:
        return 1.0
    return torch.tensor(float(model_sampling.percent_to_sigma(PERCENT))).item()
